"""to_torch: a net of dp as a module of PyTorch."""

from __future__ import annotations

from typing import Any

import dp
from gradlab.bridges.functions import module_of
from gradlab.bridges.sequential_net import Sequential_Net
from gradlab.bridges.weights import DTYPES, pytorch, write


def to_torch(net: dp.Net, *, logits: bool = False) -> Any:
    """Make a PyTorch module that gives the numbers of `net.forward`.

    Its modules are called h1, h1_activation, h2, …, out, out_activation. Weights are transposed,
    as PyTorch keeps them, and copies: training either net leaves the other as it is (see
    `copy_weights`). The dtype is kept, the module is on the CPU, and no random number is drawn.

    Parameters
    ----------
    net : dp.Net
        Without normalisation, residual connections or members.
    logits : bool
        Leave out the last sigmoid or softmax, for PyTorch's losses of logits
        (`binary_cross_entropy_with_logits`, `cross_entropy`).

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    TypeError
        If `net` is no `dp.Net`, or a subclass with a forward of its own.
    ValueError
        If it has something that a row of PyTorch's modules has not, naming the layer.
    ImportError
        If PyTorch is not installed.
    """
    torch = pytorch()
    _check_net(net)
    modules: dict[str, Any] = {}
    for name, layer in net.layers.items():
        modules[name] = _linear(torch, layer)
        if name != "out":
            modules[f"{name}_activation"] = module_of(torch, name, layer.activation)
    if not logits and not (isinstance(net, Sequential_Net) and net.outputs == "values"):
        last = torch.nn.Sigmoid() if net.n_outputs == 1 else torch.nn.Softmax(dim=-1)
        modules["out_activation"] = last
    sequential = torch.nn.Sequential()
    for name, module in modules.items():
        sequential.add_module(name, module)
    return sequential


def _check_net(net: Any) -> None:
    if not isinstance(net, dp.Net):
        raise TypeError(
            f"net must be a dp.Net, got {type(net).__name__}; the weights of another dp.Model go "
            "into a torch.nn.Sequential of the same sizes by copy_weights"
        )
    known = (dp.Net, Sequential_Net)
    for method in ("forward", "logits"):
        if method in vars(net) or getattr(type(net), method) not in [
            getattr(cls, method) for cls in known
        ]:
            raise TypeError(
                f"{type(net).__name__} has a {method} of its own, which PyTorch's modules would "
                "not follow; accepted is a dp.Net, and a subclass that leaves forward and logits "
                "as they are"
            )
    names = list(net.layers)
    added = names[names.index("out") + 1 :]
    if added:
        raise ValueError(
            f"layer {added[0]!r} was added to the net, and its forward does not use it; accepted "
            "is a net with its own layers alone"
        )
    first = net.layers[names[0]]
    if net.members is not None:
        raise ValueError(
            f"layer {first.name!r} holds {net.members} members; one net is carried at a time: give "
            "a net with one seed, such as dp.Net(…, seed=0)"
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
    if net.dtype.name not in DTYPES:
        raise ValueError(
            f"the net's dtype is {net.dtype}, which PyTorch has not; accepted are "
            f"{', '.join(DTYPES)}"
        )


def _linear(torch: Any, layer: dp.Layer) -> Any:
    # nobody draws initial weights that are overwritten at once
    dtype = getattr(torch, layer.weight.dtype.name)
    linear = torch.nn.utils.skip_init(
        torch.nn.Linear, layer.fan_in, layer.fan_out, dtype=dtype, device="cpu"
    )
    write(linear, layer.weight.value, layer.bias.value)
    return linear
