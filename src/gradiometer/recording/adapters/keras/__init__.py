"""The adapter for Keras 3: every recorded step of `fit` is computed a second time, beside it.

The training's own step is left as it is. Before it, the same loss is computed from the same
weights, batch and random numbers, with a zero added to each layer's pre-activation: the derivatives
by these zeros are the deltas.
"""

# layers.py    the weights of a model, and where their layers have a pre-activation
# forward.py   what one forward pass shows of the layers
# backends.py  the loss and its derivatives, with PyTorch and with JAX
# measuring.py what is recorded of one step
# training.py  between a model and its trainer: which steps there are

from gradiometer.recording.adapters.keras.training import recorder_of

__all__ = ["recorder_of"]
