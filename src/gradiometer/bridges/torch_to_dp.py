"""from_torch: a module of PyTorch as a net of dp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import dp
from dp import activations
from dp.activations import SOFTMAX, Activation
from dp.validation import one_of
from gradiometer.bridges.functions import ACCEPTED, function_of
from gradiometer.bridges.sequential_net import Affine, Sequential_Net
from gradiometer.bridges.weights import DTYPES, pytorch, weight_and_bias


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
        If it is not a `torch.nn.Sequential`.
    ValueError
        For a module that is not carried, naming its position and what would be accepted.
    ImportError
        If PyTorch is not installed.
    """
    torch = pytorch()
    one_of("loss", loss, ("cross_entropy", "squared_error"))
    layers = linears(torch, sequential)
    *hidden, last = layers
    ending = _ending(last)
    values = ending.name == "identity" and loss == "squared_error"
    functions = [*map(_hidden, hidden), ending]
    affine = [
        Affine(*weight_and_bias(layer.linear), function)
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


class Linear(NamedTuple):
    """A Linear, where it stands, and the activation module after it, if there is one."""

    where: str
    linear: Any
    after: str | None = None
    module: Any = None
    function: Activation = activations.get("identity")


def linears(torch: Any, sequential: Any, others: bool = True) -> list[Linear]:
    """The Linears of a Sequential, checked; `others` says whether other modules count."""
    nn = torch.nn
    if not isinstance(sequential, nn.Sequential):
        raise TypeError(
            f"expected a torch.nn.Sequential of Linear and activation modules, got "
            f"{type(sequential).__name__}"
        )
    if type(sequential).forward is not nn.Sequential.forward or "forward" in vars(sequential):
        raise TypeError(
            f"{type(sequential).__name__} has a forward of its own; accepted is a "
            "torch.nn.Sequential that calls its modules one after the other"
        )
    found: list[Linear] = []
    # a module that is used twice shall be seen twice
    for where, module in sequential.named_modules(remove_duplicate=False):
        what = f"{type(module).__name__} at position {where!r}"
        if "forward" in vars(module):
            raise ValueError(f"{what} was given another forward, which is not carried")
        if type(module) is nn.Sequential or module is sequential:
            continue
        if type(module) is nn.Linear:
            _check_linear(what, module, found)
            found.append(Linear(where, module))
        elif not others:
            continue
        elif not found:
            raise ValueError(f"{what} has no Linear before it; the first module must be a Linear")
        else:
            function = function_of(torch, module)
            if function is None:
                raise ValueError(
                    f"{what} ({module}) is not carried; accepted are Linear, "
                    f"{ACCEPTED}, and at the end Softmax(dim=-1)"
                )
            if found[-1].after is not None:
                raise ValueError(
                    f"{what} follows {type(found[-1].module).__name__} at position "
                    f"{found[-1].after!r}; at most one activation module may follow a Linear"
                )
            found[-1] = found[-1]._replace(after=where, module=module, function=function)
    if not found:
        raise ValueError("the Sequential has no Linear; at least one is needed")
    _check_all_carried(sequential, found)
    return found


def _check_all_carried(sequential: Any, found: Sequence[Linear]) -> None:
    """Refuse parameters and buffers that are none of a Linear's, such as those of a pruned one."""
    own = {id(x) for layer in found for x in (layer.linear.weight, layer.linear.bias)}
    for name, parameter in sequential.named_parameters():
        if id(parameter) not in own:
            raise ValueError(f"parameter {name!r} is none of a Linear, and is not carried")
    for name, _ in sequential.named_buffers():
        raise ValueError(f"buffer {name!r} is none of a Linear, and is not carried")


def _check_linear(what: str, linear: Any, before: Sequence[Linear]) -> None:
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


def _hidden(layer: Linear) -> Activation:
    """The activation function of a hidden layer."""
    if layer.function is SOFTMAX:
        raise ValueError(
            f"Softmax at position {layer.after!r} is followed by a Linear; only the last module "
            "may be a Softmax"
        )
    return layer.function


def _ending(layer: Linear) -> Activation:
    """What the output layer is followed by."""
    outputs = layer.linear.out_features
    right = {"identity": True, "sigmoid": outputs == 1, "softmax": outputs > 1}
    if not right.get(layer.function.name, False):
        raise ValueError(
            f"the Sequential ends in {type(layer.module).__name__} at position {layer.after!r}, "
            f"with {outputs} output{'s' if outputs > 1 else ''}; it may end in a Linear, in a "
            "Sigmoid with one output, or in a Softmax with several"
        )
    return layer.function
