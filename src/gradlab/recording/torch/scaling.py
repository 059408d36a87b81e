"""Losses that are scaled, so that small gradients survive in half precision."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import torch

from gradlab.recording.torch.shared import Shared

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


def _install(undo: contextlib.ExitStack) -> None:
    original = torch.amp.GradScaler.scale

    def scale(scaler: torch.amp.GradScaler, outputs: Any) -> Any:
        scaled = original(scaler, outputs)
        for tell in SCALING.members:
            tell(float(scaler.get_scale()))
        return scaled

    torch.amp.GradScaler.scale = scale
    undo.callback(setattr, torch.amp.GradScaler, "scale", original)


# Who wants to know by how much a GradScaler scales a loss. An optimizer's step says so too
# (`scale_of_the_caller`), unless the scaler skips it.
SCALING = Shared(_install)
