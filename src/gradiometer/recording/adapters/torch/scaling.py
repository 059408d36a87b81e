"""Losses that are scaled, so that small gradients survive in half precision."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from gradiometer.recording.adapters.torch.shared import Shared


def _install(undo: contextlib.ExitStack) -> None:
    original = torch.amp.GradScaler.scale

    def scale(scaler: torch.amp.GradScaler, outputs: Any) -> Any:
        scaled = original(scaler, outputs)
        if scaler.is_enabled():
            for observer in SCALING.members:
                observer.scaled(scaled, float(scaler.get_scale()))
        return scaled

    torch.amp.GradScaler.scale = scale
    undo.callback(setattr, torch.amp.GradScaler, "scale", original)


# Who is told of losses that a GradScaler scales, and by how much: observer.scaled(losses, scale).
# There may be several scalers, so each backward pass learns its own scale from the losses it goes
# through (`Pass.is_scaled`).
SCALING = Shared(_install)
