"""Weights both ways between dp's nets and PyTorch's, so that each can be checked against the other.

PyTorch is loaded when a function needs it.
"""

# dp_to_torch.py     to_torch
# torch_to_dp.py     from_torch
# copying.py         copy_weights, between nets that exist
# sequential_net.py  a dp.Net whose layers differ as a Sequential's may
# functions.py       activation functions, both ways
# weights.py         the numbers of one layer, of either kind

from gradiometer.bridges.copying import copy_weights
from gradiometer.bridges.dp_to_torch import to_torch
from gradiometer.bridges.sequential_net import Affine, Sequential_Net
from gradiometer.bridges.torch_to_dp import from_torch

__all__ = ["Affine", "Sequential_Net", "copy_weights", "from_torch", "to_torch"]
