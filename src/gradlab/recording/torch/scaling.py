"""Losses that are scaled, so that small gradients survive in half precision."""

from __future__ import annotations

import sys

import torch

_FILE: str = torch.amp.GradScaler.step.__code__.co_filename
_FRAMES = 12  # between a hook of an optimizer and the scaler that made its step


def scale_of_the_caller() -> float:
    """By how much the loss was scaled, if the optimizer's step is made by a GradScaler."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_back is None:
            break
        frame = frame.f_back
        if frame.f_code.co_filename == _FILE:
            scaler = frame.f_locals.get("self")
            if isinstance(scaler, torch.amp.GradScaler):
                return float(scaler.get_scale())
    return 1.0
