"""Weights both ways between dp's nets and PyTorch's, so that each can be checked against the other.

PyTorch is loaded when a function needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import dp
from dp import activations, initializers
from dp.activations import Activation
from dp.node import as_leaf
from dp.validation import one_of

Array = NDArray[Any]

DTYPES = ("float16", "float32", "float64")
# From here on log(1 + exp(h)) is h to the last digit of a float64, and PyTorch gives h; with its
# own threshold of 20 it is 2e-9 off.
SOFTPLUS_THRESHOLD = 40.0


class Affine(NamedTuple):
    """The numbers of one layer, and its activation function.

    Attributes
    ----------
    weight : array (fan_in, fan_out)
    bias : array (1, fan_out)
    function : Activation
    """

    weight: Array
    bias: Array
    function: Activation


class Sequential_Net(dp.Net):
    """A `dp.Net` whose layers each have a width and an activation function of their own.

    Parameters
    ----------
    hidden : sequence of Affine
        The hidden layers, h1 … hL; there may be none.
    out : Affine
        The output layer; what it is followed by is decided by `outputs`.
    outputs : "probabilities" or "values"
        Whether `forward` ends in a sigmoid or softmax, as a `dp.Net` does, or gives the output
        layer's pre-activations themselves (a net for regression).
    loss, reduction
        See `dp.Net`; values go with "squared_error" alone.
    dtype : dtype
        Of every parameter.

    Raises
    ------
    ValueError
        For an unknown name, naming what would be accepted.
    """

    def __init__(
        self,
        hidden: Sequence[Affine],
        out: Affine,
        *,
        outputs: Literal["probabilities", "values"] = "probabilities",
        loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
        reduction: dp.losses.Reduction = "sum",
        dtype: Any = np.float64,
    ) -> None:
        dp.Model.__init__(self, dtype=dtype)
        one_of("outputs", outputs, ("probabilities", "values"))
        accepted = ("squared_error",) if outputs == "values" else ("cross_entropy", "squared_error")
        one_of("loss", loss, accepted)
        one_of("reduction", reduction, ("sum", "mean"))
        functions = [affine.function for affine in hidden]
        same = all(function == functions[0] for function in functions)
        self.activation = functions[0] if functions and same else None
        self.outputs = outputs
        self.n_outputs = out.weight.shape[1]
        self.normalisation, self.residual = "none", False
        self.loss_name, self.reduction = loss, reduction
        for number, affine in enumerate(hidden, 1):
            self._given(f"h{number}", affine).activation = affine.function
        self._given("out", out)

    def _given(self, name: str, affine: Affine) -> dp.Layer:
        how = initializers.Initializer(
            "given", "", lambda *_: affine.weight, lambda *_: affine.bias
        )  # draws nothing: no random stream is moved on
        fan_in, fan_out = affine.weight.shape
        return self.Linear_Layer(fan_in, fan_out, name, how)

    def logits(self, x: Any, like: Any = None) -> dp.Node:  # noqa: ARG002 (nothing is normalised)
        """Pre-activations of the output layer, (batch, n_outputs)."""
        out = as_leaf(x, self.dtype)
        for layer in self.layers.values():
            out = layer(out)
        return out

    def forward(self, x: Any, like: Any = None) -> dp.Node:
        """Probabilities or values, (batch, n_outputs); `like` changes nothing."""
        return self.logits(x) if self.outputs == "values" else super().forward(x, like)


# --- dp -> PyTorch --------------------------------------------------------------------------------


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
    torch = _torch()
    _check_net(net)
    modules: dict[str, Any] = {}
    for name, layer in net.layers.items():
        modules[name] = _linear(torch, layer)
        if name != "out":
            modules[f"{name}_activation"] = _module(torch, name, layer.activation)
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
    # nobody draws first weights that are overwritten at once
    dtype = getattr(torch, layer.weight.dtype.name)
    linear = torch.nn.utils.skip_init(
        torch.nn.Linear, layer.fan_in, layer.fan_out, dtype=dtype, device="cpu"
    )
    _write(linear, layer.weight.value, layer.bias.value)
    return linear


def _module(torch: Any, where: str, function: Any) -> Any:
    """PyTorch's module for the activation function of layer `where`."""
    nn = torch.nn
    plain = {
        "identity": nn.Identity,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "selu": nn.SELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }
    if isinstance(function, Activation):
        known = activations.matching(function.primitive, function.settings)
        identity = function.primitive is None
        name = "identity" if identity else "" if known is None else known.name
        settings = function.settings
        if name in plain:
            return plain[name]()
        if name == "clipped_relu":
            ceiling = settings["ceiling"]
            return nn.ReLU6() if ceiling == 6.0 else nn.Hardtanh(0.0, ceiling)
        if name == "leaky_relu":
            return nn.LeakyReLU(settings["slope"])
        if name == "elu":
            return nn.ELU(settings["alpha"])
        if name == "softplus":
            return nn.Softplus(threshold=SOFTPLUS_THRESHOLD)
        what = function.name
    else:
        what = f"one of your own, {function!r}"
    raise ValueError(
        f"the activation function of layer {where!r} is {what}, for which PyTorch has no module; "
        f"accepted are {', '.join((*plain, 'clipped_relu', 'leaky_relu', 'elu', 'softplus'))}"
    )


# --- PyTorch -> dp --------------------------------------------------------------------------------


def from_torch(
    sequential: Any,
    *,
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
    reduction: dp.losses.Reduction = "sum",
) -> dp.Net:
    """Make a `dp.Net` with the weights and activation functions of a `torch.nn.Sequential`.

    The layers are called h1 … hL and out. Weights are copies, in the dtype they have.

    A Sequential that ends in a Linear gives what its loss is meant for. With "cross_entropy" these
    are logits: `net.logits` gives the same numbers, and `net.forward` their probabilities. With
    "squared_error" they are values: `net.forward` gives the same numbers. One that ends in a
    Sigmoid or a Softmax gives the numbers of `net.forward` in either case.

    Parameters
    ----------
    sequential : torch.nn.Sequential
        Linear modules with a bias, at most one activation module after each; Sequentials inside
        are gone through. It may end in a Linear, in a Sigmoid with one output, or in a Softmax with
        several.
    loss, reduction
        Of the dp net: see `dp.Net`. A Sequential has no loss.

    Returns
    -------
    Sequential_Net
        A `dp.Net` whose widths and activation functions may differ from layer to layer.

    Raises
    ------
    TypeError
        If it is no `torch.nn.Sequential`.
    ValueError
        For a module that is not carried, naming its position and what would be accepted.
    ImportError
        If PyTorch is not installed.
    """
    torch = _torch()
    one_of("loss", loss, ("cross_entropy", "squared_error"))
    layers = _layers(torch, sequential)
    *hidden, last = layers
    ending = _ending(torch, last)
    values = ending.name == "identity" and loss == "squared_error"
    functions = [*(_function(torch, layer) for layer in hidden), ending]
    affine = [
        Affine(*_numbers(layer.linear), function)
        for layer, function in zip(layers, functions, strict=True)
    ]
    return Sequential_Net(
        affine[:-1],
        affine[-1],
        outputs="values" if values else "probabilities",
        loss=loss,
        reduction=reduction,
        dtype=affine[0].weight.dtype,
    )


class _Linear(NamedTuple):
    """A Linear, where it stands, and the module after it, if it is no Linear."""

    where: str
    linear: Any
    after: str | None
    module: Any


def _layers(torch: Any, sequential: Any, others: bool = True) -> list[_Linear]:
    """The Linears of a Sequential, checked; `others` says whether other modules count."""
    nn = torch.nn
    if not isinstance(sequential, nn.Sequential):
        raise TypeError(
            f"expected a torch.nn.Sequential of Linear and activation modules, got "
            f"{type(sequential).__name__}"
        )
    if type(sequential).forward is not nn.Sequential.forward:
        raise TypeError(
            f"{type(sequential).__name__} has a forward of its own; accepted is a "
            "torch.nn.Sequential that calls its modules one after the other"
        )
    found: list[_Linear] = []
    # a module that is used twice shall be seen twice
    for where, module in sequential.named_modules(remove_duplicate=False):
        what = f"{type(module).__name__} at position {where!r}"
        if type(module) is nn.Sequential or module is sequential:
            continue
        if type(module) is nn.Linear:
            _check_linear(what, module, found)
            found.append(_Linear(where, module, None, None))
        elif not others:
            continue
        elif not found:
            raise ValueError(f"{what} has no Linear before it; the first module must be a Linear")
        elif found[-1].after is not None:
            raise ValueError(
                f"{what} follows {type(found[-1].module).__name__} at position "
                f"{found[-1].after!r}; at most one activation module may follow a Linear"
            )
        else:
            found[-1] = found[-1]._replace(after=where, module=module)
            if _known(torch, module) is None:
                raise ValueError(
                    f"{what} ({module}) is not carried; accepted are Linear, "
                    f"{ACCEPTED}, and at the end Softmax(dim=-1)"
                )
    if not found:
        raise ValueError("the Sequential has no Linear; at least one is needed")
    return found


def _check_linear(what: str, linear: Any, before: Sequence[_Linear]) -> None:
    dtype = str(linear.weight.dtype).removeprefix("torch.")
    if linear.bias is None:
        raise ValueError(
            f"{what} has no bias, and a layer of dp always has one, which would be trained; "
            "accepted is Linear(…, bias=True), with a bias of zeros for the same numbers"
        )
    if dtype not in DTYPES:
        raise ValueError(f"{what} is {dtype}; accepted are {', '.join(DTYPES)}")
    for other in before:
        if other.linear.weight is linear.weight or other.linear.bias is linear.bias:
            raise ValueError(
                f"{what} shares its weights with the one at position {other.where!r}; every layer "
                "of dp has weights of its own"
            )
    if before:
        where, last, *_ = before[-1]
        if last.out_features != linear.in_features:
            raise ValueError(
                f"{what} takes {linear.in_features} inputs, but the Linear at position {where!r} "
                f"gives {last.out_features}"
            )
        if last.weight.dtype != linear.weight.dtype:
            raise ValueError(
                f"{what} is {dtype}, the Linear at position {where!r} {last.weight.dtype}; they "
                "must be alike"
            )


ACCEPTED = (
    "Identity, Sigmoid, Tanh, ReLU, ReLU6, Hardtanh(0, ceiling), LeakyReLU, ELU, SELU, "
    "GELU(approximate='none'), SiLU, Softplus(beta=1, threshold=20 or more)"
)


def _known(torch: Any, module: Any) -> Activation | None:
    """dp's activation function for a module of PyTorch, or None."""
    nn = torch.nn
    plain = {
        nn.Identity: "identity",
        nn.Sigmoid: "sigmoid",
        nn.Tanh: "tanh",
        nn.ReLU: "relu",
        nn.ReLU6: "clipped_relu",
        nn.SELU: "selu",
        nn.SiLU: "silu",
    }
    kind = type(module)
    if kind in plain:
        return activations.get(plain[kind])
    if kind is nn.Hardtanh and module.min_val == 0 < module.max_val < np.inf:
        return activations.clipped_relu(module.max_val)
    if kind is nn.LeakyReLU:
        return activations.leaky_relu(module.negative_slope)
    if kind is nn.ELU and 0 < module.alpha < np.inf:
        return activations.elu(module.alpha)
    if kind is nn.GELU and module.approximate == "none":
        return activations.get("gelu")
    if kind is nn.Softplus and module.beta == 1 and module.threshold >= 20:
        return activations.get("softplus")
    if kind is nn.Softmax and module.dim in (1, -1):
        return activations.SOFTMAX
    return None


def _function(torch: Any, layer: _Linear) -> Activation:
    """The activation function of a hidden layer."""
    if layer.module is None:
        return activations.get("identity")
    known = _known(torch, layer.module)
    assert known is not None
    if known is activations.SOFTMAX:
        raise ValueError(
            f"Softmax at position {layer.after!r} is followed by a Linear; only the last module "
            "may be a Softmax"
        )
    return known


def _ending(torch: Any, layer: _Linear) -> Activation:
    """What the output layer is followed by."""
    if layer.module is None:
        return activations.get("identity")
    known = _known(torch, layer.module)
    assert known is not None
    outputs = layer.linear.out_features
    right = {"identity": True, "sigmoid": outputs == 1, "softmax": outputs > 1}
    if not right.get(known.name, False):
        raise ValueError(
            f"the Sequential ends in {type(layer.module).__name__} at position {layer.after!r}, "
            f"with {outputs} output{'s' if outputs > 1 else ''}; it may end in a Linear, in a "
            "Sigmoid with one output, or in a Softmax with several"
        )
    return known


# --- two nets that exist --------------------------------------------------------------------------


def copy_weights(source: Any, target: Any) -> None:
    """Copy weights and biases from one net into another, layer by layer, in order.

    Parameters
    ----------
    source, target : dp.Model or torch.nn.Sequential
        In either direction. The layers of a `dp.Model` are taken in the order in which they were
        made, the Linears of a Sequential in the order in which they are called. Activation
        functions are not compared: a Model's forward is its own affair.

    Raises
    ------
    TypeError
        If either is no such net, or their dtypes differ: numbers would be rounded.
    ValueError
        If the layers differ in number or sizes, or hold what is not carried, naming the layer.
        Nothing is changed if anything is wrong.
    ImportError
        If neither is a `dp.Model` and PyTorch is not installed.
    """
    ours, theirs = _affine_maps(source), _affine_maps(target)
    if len(ours) != len(theirs):
        raise ValueError(
            f"the source has {len(ours)} layers ({', '.join(ours)}), the target {len(theirs)} "
            f"({', '.join(theirs)}); they must be as many"
        )
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    for (name, layer), (other, like) in pairs:
        weight, old = _numbers(layer)[0], _numbers(like)[0]
        if weight.shape != old.shape:
            raise ValueError(
                f"layer {name!r} of the source is {weight.shape[0]} -> {weight.shape[1]}, layer "
                f"{other!r} of the target {old.shape[0]} -> {old.shape[1]}; they must be alike"
            )
        if weight.dtype != old.dtype:
            raise TypeError(
                f"layer {name!r} of the source is {weight.dtype}, layer {other!r} of the target "
                f"{old.dtype}; make them alike with dp.Net(…, dtype=…) or sequential.double()"
            )
    for (_, layer), (_, like) in pairs:
        _write(like, *_numbers(layer))


def _affine_maps(net: Any) -> dict[str, Any]:
    """Layers of dp or Linears of PyTorch, by name or position."""
    if not isinstance(net, dp.Model):
        torch = _torch()
        if not isinstance(net, torch.nn.Sequential):
            raise TypeError(
                f"expected a dp.Model or a torch.nn.Sequential, got {type(net).__name__}"
            )
        found = {layer.where: layer.linear for layer in _layers(torch, net, others=False)}
        own = {id(x) for linear in found.values() for x in (linear.weight, linear.bias)}
        for name, parameter in net.named_parameters():
            if id(parameter) not in own:
                raise ValueError(f"parameter {name!r} is none of a Linear, and is not carried")
        return found
    if net.members is not None:
        raise ValueError(f"the {type(net).__name__} has {net.members} members; one is carried")
    layers = dict(net.layers)
    if not layers:
        raise ValueError(f"the {type(net).__name__} has no layers made by Linear_Layer")
    for name in net.get_param():
        if name.removesuffix("_weight") not in layers and name.removesuffix("_bias") not in layers:
            raise ValueError(
                f"parameter {name!r} is neither weight nor bias of a layer, and is not carried"
            )
    return layers


def _numbers(layer: Any) -> tuple[Array, Array]:
    """Weight (fan_in, fan_out) and bias (1, fan_out) of a layer of either kind."""
    if isinstance(layer, dp.Layer):
        return layer.weight.value, layer.bias.value
    weight, bias = (x.detach().numpy(force=True) for x in (layer.weight, layer.bias))
    return weight.T, bias[None, :]


def _write(layer: Any, weight: Array, bias: Array) -> None:
    if isinstance(layer, dp.Layer):
        layer.weight.value[...] = weight
        layer.bias.value[...] = bias
        return
    torch = _torch()
    with torch.no_grad():  # not through NumPy, of which autograd would not know
        layer.weight.copy_(torch.tensor(np.ascontiguousarray(weight.T)))
        layer.bias.copy_(torch.tensor(np.ascontiguousarray(bias[0])))


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError("PyTorch is not installed; pip install 'gradlab[torch]'") from None
