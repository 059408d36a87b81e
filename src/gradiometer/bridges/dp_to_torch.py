"""to_torch: a net of dp as a module of PyTorch."""

from __future__ import annotations

from typing import Any

import dp
from dp import activations
from dp.net import chain_of
from gradiometer.bridges.functions import module_of
from gradiometer.bridges.sequential_net import Sequential_Net
from gradiometer.bridges.weights import DTYPES, check_parameters, pytorch, registered_of, write


def to_torch(net: dp.Net, *, logits: bool = False) -> Any:
    """Make a PyTorch module that gives the numbers of `net.forward`.

    Its modules are called h1, h1_activation, h2, …, out, out_activation. Weights are transposed,
    as PyTorch keeps them, and copies: training either net leaves the other as it is (see
    `copy_weights`). The dtype is kept, the module is on the CPU, and no random number is drawn.

    Parameters
    ----------
    net : dp.Net
        Without normalisation, residual connections, members, or parameters besides the weights and
        biases of its layers.
    logits : bool
        Leave out the last sigmoid or softmax, for PyTorch's losses of logits
        (`binary_cross_entropy_with_logits`, `cross_entropy`).

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    TypeError
        If `net` is not a `dp.Net`, or is a subclass with a forward of its own.
    ValueError
        If it has something that a row of PyTorch's modules has not, naming the layer, or a
        parameter of its own (`net.Parameter`).
    ImportError
        If PyTorch is not installed.
    """
    torch = pytorch()
    *hidden, out = _checked(net)
    modules: dict[str, Any] = {}
    for layer in hidden:
        modules[layer.name] = _linear(torch, layer)
        modules[f"{layer.name}_activation"] = module_of(torch, layer.name, layer.activation)
    modules[out.name] = _linear(torch, out)
    if not logits and not (isinstance(net, Sequential_Net) and net.outputs == "values"):
        last = torch.nn.Sigmoid() if net.n_outputs == 1 else torch.nn.Softmax(dim=-1)
        modules["out_activation"] = last
    sequential = torch.nn.Sequential()
    for name, module in modules.items():
        sequential.add_module(name, module)
    return sequential


def _checked(net: Any) -> tuple[dp.Layer, ...]:
    """The layers that the net's forward calls, if they are all it computes with."""
    if not isinstance(net, dp.Net):
        raise TypeError(
            f"net must be a dp.Net, got {type(net).__name__}; the weights of another dp.Model go "
            "into a torch.nn.Sequential of the same sizes by copy_weights"
        )
    _refuse_own_methods(net)
    chain = chain_of(net)
    _refuse_structure(net, chain)
    check_parameters(net)
    _refuse_output_and_dtype(net, chain)
    return chain


def _refuse_own_methods(net: dp.Net) -> None:
    """Raise TypeError for a forward or logits that a subclass, or the net itself, overrides."""
    known = (dp.Net, Sequential_Net)
    for method in ("forward", "logits"):
        accepted = [getattr(cls, method) for cls in known]
        if method in vars(net) or getattr(type(net), method) not in accepted:
            raise TypeError(
                f"{type(net).__name__} has a {method} of its own, which PyTorch's modules would "
                "not follow; accepted is a dp.Net, and a subclass that leaves forward and logits "
                "as they are"
            )


def _refuse_structure(net: dp.Net, chain: tuple[dp.Layer, ...]) -> None:
    """Raise ValueError for what a row of PyTorch's modules has not, naming the layer."""
    kept, first = registered_of(net), chain[0]
    for name, layer in kept.layers.items():
        if layer not in chain:
            raise ValueError(
                f"layer {name!r} was added to the net, and its forward does not use it; accepted "
                "is a net with its own layers alone"
            )
    if kept.members is not None:
        raise ValueError(
            f"layer {first.name!r} holds {kept.members} members; one net is carried at a time: "
            "give a net with one seed, such as dp.Net(…, seed=0)"
        )
    if net.normalisation != "none":
        raise ValueError(
            f"layer {first.name!r} has {net.normalisation} normalisation, which is not carried; "
            "accepted is normalisation='none'"
        )
    if net.residual:
        raise ValueError(
            f"layer {first.name!r} is in a net with residual connections, which a "
            "torch.nn.Sequential has not; accepted is residual=False"
        )
    for layer in chain:
        if layer.normalise is not None:
            raise ValueError(
                f"layer {layer.name!r} has a normalisation of its own, which is not carried"
            )


def _refuse_output_and_dtype(net: dp.Net, chain: tuple[dp.Layer, ...]) -> None:
    """Raise ValueError for an activation of the output layer, and for a dtype PyTorch has not."""
    if chain[-1].activation not in (None, activations.get("identity")):
        raise ValueError(
            f"the output layer {chain[-1].name!r} has an activation function of its own, "
            f"{chain[-1].activation!r}, which is not carried"
        )
    dtype = registered_of(net).dtype
    if dtype.name not in DTYPES:
        raise ValueError(
            f"the net's dtype is {dtype}, which PyTorch has not; accepted are {', '.join(DTYPES)}"
        )


def _linear(torch: Any, layer: dp.Layer) -> Any:
    # nobody draws initial weights that are overwritten at once
    dtype = getattr(torch, layer.weight.dtype.name)
    linear = torch.nn.utils.skip_init(
        torch.nn.Linear, layer.fan_in, layer.fan_out, dtype=dtype, device="cpu"
    )
    write(linear, layer.weight.value, layer.bias.value)
    return linear
