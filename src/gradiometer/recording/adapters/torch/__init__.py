"""The adapter for PyTorch: where its models keep weights, gradients, deltas and activations."""

# layers.py     which modules own weights, and what is known of their outputs
# functions.py  PyTorch's activation functions, as dp knows them
# computed.py   weights computed from other parameters, which recording must not compute again
# unseen.py     layers in plain lists, which PyTorch does not see
# fans.py       fan_in and fan_out, by the kind of layer or by the product a weight is used in
# uses.py       what a function does with a layer's output
# outputs.py    which activation function is applied to each layer's output
# calls.py      calls of layers, and the calls each thread is currently in
# backward.py   backward passes
# backward_hooks.py  the hooks that a backward pass calls
# expected.py   which passes are probably followed by a backward pass; others are measured later
# watch.py      the hooks: tells a listener of calls, activations, deltas, gradients
# shared.py     hooks of which PyTorch has one for the whole process
# scaling.py    losses scaled by a GradScaler
# updates.py    steps of optimizers: which of them belong together as one step
# gradients.py  dL/dW as backward computed it, and as an optimizer was given it
# reference.py  the forward pass on the reference batch
# untouched.py  restores what that forward pass changes
# dispatch.py   the time that recording costs outside its own code
# step.py       what is known of a step so far
# assembly.py   the record of a step, from its parts
# recorder.py   the recorder: when a step begins and ends, and what is measured when
# arrays.py     tensors as arrays

from gradiometer.recording.adapters.torch.recorder import TorchRecorder

__all__ = ["TorchRecorder"]
