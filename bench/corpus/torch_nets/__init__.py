"""Nets of PyTorch: MLPs, convolutional, residual, recurrent nets, transformers, bags of tokens."""

from __future__ import annotations

from bench.corpus.torch_nets.table import cases

__all__ = ["cases"]
