"""The adapter for PyTorch: where its models keep weights, gradients, deltas and activations."""

# The user holds a recorder; its training sees the steps of optimizers; its watch has hooks, which
# tell measuring what they see; results puts a step together.
#
# recorder.py         makes a recorder, and checks what it is to record
# plan.py             what is recorded, and of which model
# training.py         when a step begins and ends, and what is done then
# optimizers.py       steps of optimizers: which of them belong together as one step
# watch.py            all that is hooked while a step is recorded
# forward.py          forward passes: which layers are called
# activations.py      which activation function is applied to each layer's output
# followed.py         the tensors that are followed for that
# uses.py             what a function does with a layer's output
# functions.py        which functions and modules are activation functions
# deferred.py         forward passes that are probably not trained
# backward.py         backward passes
# parameter_hooks.py  the hooks of parameters
# shared.py           hooks of which PyTorch has one for the whole process
# scaling.py          losses scaled by a GradScaler
# measuring.py        each array is measured as soon as it is seen
# gradients.py        dL/dW as backward computed it, and as an optimizer was given it
# grad_norm.py        the norm of the gradient of all parameters
# reference.py        the forward pass on the reference batch
# restore.py          restores what that forward pass changes
# calls.py, step.py   what is known of a call, and of a step, so far
# results.py          what a step that is over says of each layer, and why something is missing
# chains.py           which layers lead to which
# layers.py           which modules own weights, and what is known of their outputs
# modules.py          which modules hold the layers, and whether they are still in their places
# parametrized.py     weights computed from other parameters, which recording must not compute again
# unregistered.py     layers in plain lists, which PyTorch does not see
# fans.py             fan_in and fan_out, by the kind of layer or by the product a weight is used in
# arrays.py           tensors as arrays
# overhead.py         the time that recording costs outside its own code

from gradiometer.recording.adapters.torch.recorder import recorder_of

__all__ = ["recorder_of"]
