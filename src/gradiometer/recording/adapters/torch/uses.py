"""What a function or a module of PyTorch does with a layer's output.

Functions are told apart by their names, in a few groups. What is in none of them is unknown, and an
output that goes there has no activation function that could be measured.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradiometer.recording.adapters.torch.functions import FUNCTIONS, MODULES, Arguments
from gradiometer.recording.functions import Function


class Kind(enum.Enum):
    """What becomes of a layer's output."""

    APPLIED = enum.auto()  # a function of each of its entries
    MOVED = enum.auto()  # the same entries, in another shape, order or precision
    ALTERED = enum.auto()  # pooled, dropped out, normalised, scaled, a part of it
    TAKEN = enum.auto()  # made into something else: a product with weights, a sum with others
    UNKNOWN = enum.auto()


@dataclass(frozen=True)
class Use:
    """One use of a layer's output.

    Attributes
    ----------
    kind : Kind
    name : str
        What uses it.
    function : Function, optional
        φ, if one is applied.
    in_place : bool
        Whether it is written into.
    elsewhere : bool
        Whether it is written into something else.
    """

    kind: Kind
    name: str
    function: Function | None = None
    in_place: bool = False
    elsewhere: bool = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# the numbers stay the same; not replayed on numbers of units, which are whole
CASTS = _names("bfloat16 contiguous clone cpu cuda double float half to type type_as")
MOVES = CASTS | _names(
    "alias channel_shuffle flatten flip fliplr flipud moveaxis movedim native_channel_shuffle "
    "permute pixel_shuffle pixel_unshuffle ravel requires_grad reshape reshape_as roll rot90 "
    "squeeze swapaxes swapdims t transpose unflatten unsqueeze view view_as T mT"
)
_ALTERS = _names(
    "amax amin batch_norm chunk constant_pad_nd cumsum dsplit expand expand_as feature_dropout "
    "fold gather group_norm hsplit im2col index_select instance_norm interpolate layer_norm "
    "local_response_norm masked_select mean median nan_to_num narrow native_layer_norm neg "
    "negative normalize pad positive repeat repeat_interleave rms_norm select split "
    "split_with_sizes sum take tensor_split tile tril triu unbind unfold unsafe_chunk "
    "unsafe_split upsample vsplit"
)
_ALTERS_PARTS = ("pool", "dropout", "upsample")  # of a name
_TAKES = _names(
    "addbmm addmm addmv addr baddbmm bilinear bmm cat cdist chain_matmul concat concatenate "
    "copy cosine_similarity cross_entropy dot dstack einsum embedding gru gru_cell hstack inner "
    "kl_div kron linear logsumexp lstm lstm_cell matmul mm multi_dot "
    "multi_head_attention_forward mv norm outer pairwise_distance prod rnn_relu rnn_relu_cell "
    "rnn_tanh rnn_tanh_cell scaled_dot_product_attention stack std std_mean tensordot vander "
    "var var_mean vecdot vstack binary_cross_entropy binary_cross_entropy_with_logits"
)
_TAKES_BEGINNINGS = ("conv", "fft_", "linalg_", "_scaled_dot_product", "stft")
# with numbers and masks they scale an output, with other outputs they make something else of it
_SUMS = _names(
    "add addcdiv addcmul div divide lerp masked_fill mul multiply sub subtract true_divide where"
)
# those that make one tensor of several, entry by entry
_COMBINES = _SUMS | _names(
    "atan2 copysign fmax fmin fmod heaviside hypot index_put masked_scatter max maximum min "
    "minimum pow remainder xlogy"
)
# functions of each entry that are no usual activation functions, but are applied as such
_PERIODIC = _names("arctan asinh atan cos cosh erf erfc exp exp2 expm1 log1p sin sinc sinh tan")
# after something else, they rather belong to a norm or a loss
_POWERS = _names(
    "abs absolute ceil erfinv float_power floor frac log log10 log2 pow reciprocal round rsqrt "
    "sgn sign sqrt square trunc"
)
_REVERSED = {f"r{name}": name for name in ("add", "sub", "mul", "matmul")}

_MOVING_MODULES = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
)  # fmt: skip
_TAKING_MODULES = (nn.modules.loss._Loss, nn.CosineSimilarity, nn.PairwiseDistance)
_HOMES_OF_ALTERING_MODULES = tuple(
    f"torch.nn.modules.{home}"
    for home in (
        "pooling", "dropout", "padding", "upsampling", "batchnorm", "instancenorm", "normalization",
        "fold",
    )
)  # fmt: skip


def name_of(func: Any) -> str:
    """A function's name without underscores: "add" for `torch.add`, `add_` and `__iadd__`."""
    name = getattr(func, "__name__", "") or str(func)
    if name in ("__get__", "__set__"):  # of an attribute, such as h.T
        return getattr(getattr(func, "__self__", None), "__name__", name)
    bare = name.strip("_").removeprefix("special_")
    if name.startswith("__"):
        bare = _REVERSED.get(bare, bare)
        if name.startswith("__i") and bare[1:] in (*_SUMS, "truediv", "pow", "matmul"):
            bare = bare[1:]
    return "div" if bare == "truediv" else bare


_LOOKS = {"detach", "detach_", "bernoulli", "multinomial", "__len__", "__repr__", "__format__"}
# named like those that write into their operand, which they do not
_HARMLESS = {"requires_grad_", "share_memory_", "__index__", "__int__", "__invert__"}


def changes_its_input(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function writes into its first operand, by PyTorch's naming."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    in_place = in_place or name.startswith("__i") or name == "__setitem__"
    return (in_place and name not in _HARMLESS) or kwargs.get("inplace") is True


def use_of(
    func: Any, arguments: Arguments, place: int, others: Sequence[torch.Tensor], with_itself: bool
) -> Use:
    """What a function does with an output.

    Parameters
    ----------
    func : callable
        As PyTorch announces it to a `TorchFunctionMode`.
    arguments : (tuple, dict)
    place : int
        At which of its arguments the output is.
    others : sequence of torch.Tensor
        Its other arguments.
    with_itself : bool
        Whether another argument was computed from the same output.
    """
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return Use(Kind.UNKNOWN, str(func))
    name, in_place = name_of(func), changes_its_input(func, arguments[1])
    if place and in_place:
        return Use(Kind.TAKEN, name, elsewhere=True)
    if with_itself and name in _COMBINES:
        return Use(Kind.UNKNOWN, name, in_place=in_place)
    if place == 0 and (found := FUNCTIONS.get(func)) is not None:
        return Use(Kind.APPLIED, name, found(arguments), in_place)
    return Use(_kind(name, arguments, place, others), name, _plain(name), in_place)


def _kind(name: str, arguments: Arguments, place: int, others: Sequence[torch.Tensor]) -> Kind:
    if name in MOVES or (name == "getitem" and _is_whole(arguments[0][1:])):
        return Kind.MOVED
    if name in ("max", "min"):
        among = isinstance(arguments[0][1] if len(arguments[0]) > 1 else None, torch.Tensor)
        return Kind.UNKNOWN if among or "other" in arguments[1] else Kind.ALTERED
    if name in _SUMS and not (place and "div" in name):
        return Kind.TAKEN if _joins(name, others) else Kind.ALTERED
    if name == "getitem" or name in _ALTERS or any(part in name for part in _ALTERS_PARTS):
        return Kind.ALTERED
    if name in _TAKES or name.startswith(_TAKES_BEGINNINGS) or name.endswith("_loss"):
        return Kind.TAKEN
    if (name in _PERIODIC or name in _POWERS) and place == 0 and not others:
        return Kind.APPLIED
    return Kind.UNKNOWN


def _joins(name: str, others: Sequence[torch.Tensor]) -> bool:
    """Whether an output becomes part of something else, rather than being scaled or shifted."""
    # parameters scale and shift; masks scale
    computed = [t for t in others if not isinstance(t, nn.Parameter) and t.is_floating_point()]
    if name in ("add", "sub", "subtract"):
        return any(t.ndim for t in computed)
    return any(t.requires_grad for t in computed)


def is_look(func: Any) -> bool:
    """Whether no derivative comes back from what a function gives."""
    if isinstance(home := getattr(func, "__self__", None), types.GetSetDescriptorType | property):
        return getattr(home, "__name__", "") not in ("T", "mT")
    return getattr(func, "__name__", "") in _LOOKS


def takes_only_the_shape(func: Any) -> bool:
    """Whether what a function gives does not depend on the numbers it is given."""
    name = getattr(func, "__name__", "")
    return name.endswith("_like") or name.startswith("new_")


def _plain(name: str) -> Function | None:
    return Function(name) if name in _PERIODIC or name in _POWERS else None


def belongs_to_a_norm(name: str) -> bool:
    """Whether a function that is applied after something else is none of a layer's."""
    return name in _POWERS


def _is_whole(index: Sequence[Any]) -> bool:
    """Whether an index takes every entry, in order."""
    parts = index[0] if index and isinstance(index[0], tuple) else index
    return all(part is None or part is Ellipsis or part == slice(None) for part in parts)


def use_by(module: nn.Module) -> Use | None:
    """What a module of `torch.nn` does with its input; None if its functions must be watched."""
    if "forward" in vars(module) or module._forward_pre_hooks:
        return None
    kind, name = type(module), type(module).__name__
    in_place = bool(getattr(module, "inplace", False))
    if kind in MODULES:
        return Use(Kind.APPLIED, name, MODULES[kind](module), in_place)
    if not kind.__module__.startswith("torch.nn.modules.") or module._modules:
        return None
    if isinstance(module, _MOVING_MODULES):
        return Use(Kind.MOVED, name)
    if kind.__module__ in _HOMES_OF_ALTERING_MODULES:
        return Use(Kind.ALTERED, name, in_place=in_place)
    if isinstance(module, _TAKING_MODULES):
        return Use(Kind.TAKEN, name)
    return Use(Kind.UNKNOWN, name)
