"""One package for each framework: where it keeps weights, gradients, deltas and activations."""
