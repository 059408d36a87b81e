"""The adapter for PyTorch: where its models keep weights, gradients, deltas and activations."""

from gradlab.recording.torch.recorder import TorchRecorder

__all__ = ["TorchRecorder"]
