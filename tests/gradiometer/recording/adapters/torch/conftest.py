"""Fixtures of several test files of this folder."""

import pytest


@pytest.fixture
def double_precision():
    """New tensors are of double precision, and weights drawn alike in each test."""
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def batch():
    """24 samples of 4 numbers, and their classes."""
    import torch
    from tests.gradiometer.recording.adapters.torch.torch_nets import X, Y

    return torch.from_numpy(X), torch.from_numpy(Y)
