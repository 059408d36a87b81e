"""What a callback may read of a compiled step."""

import numpy as np
from tests.dp.program.programs import X, Y

import dp


class Reading(dp.ProgramCallback):
    """Copies everything that it is shown, compiled and eager."""

    only_reads = True

    def __init__(self, model):
        self.model, self.seen = model, []

    def keep(self, captured):
        return [v for layer in captured.layers for v in (layer.activation, layer.delta)]

    def before_program_update(self, number, arrays):
        layers = [
            (layer.name, arrays.values[layer.activation].copy(), arrays.values[layer.delta].copy())
            for layer in arrays.captured.layers
        ]
        self.seen.append(
            (
                arrays.x.copy(),
                arrays.y.copy(),
                arrays.loss.copy(),
                {name: view.copy() for name, view in arrays.gradients.items()},
                {name: view.copy() for name, view in arrays.weights.items()},
                layers,
            )
        )
        self.flat = arrays.flat_weights, arrays.flat_gradients
        self.arrays = arrays

    def after_program_update(self, number, arrays):
        assert arrays is self.arrays

    def before_update(self, step):
        with dp.watch_layers() as watch:
            self.model.get_grad(step.x, step.y)
        layers = [(call.name, call.pre_activation.tanh().value, call.delta) for call in watch.calls]
        self.seen.append(
            (
                step.x.value,
                step.y.value,
                step.loss.value,
                {name: g.copy() for name, g in step.grad.items()},
                {name: w.copy() for name, w in step.param.items()},
                layers,
            )
        )


def trained(compiled):
    model = dp.Net(4, 3, 2, "tanh", seed=0)
    reading = Reading(model)
    sgd = dp.Adam(model, X, Y, {}, 6, seed=0, compile=compiled, callbacks=[reading])
    sgd.train(4, print_each=None)
    return reading


def test_arrays_are_those_of_eager_steps():
    compiled, eager = trained(True), trained(False)
    assert len(compiled.seen) == len(eager.seen) == 4
    for mine, theirs in zip(compiled.seen, eager.seen, strict=True):
        for found, right in zip(mine[:3], theirs[:3], strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-12)
        for found, right in zip(mine[3:5], theirs[3:5], strict=True):
            assert list(found) == list(right)
            for name in right:
                np.testing.assert_allclose(found[name], right[name], rtol=1e-9, atol=1e-12)
        for (name, x, delta), (same, other_x, other_delta) in zip(mine[5], theirs[5], strict=True):
            assert name == same
            np.testing.assert_allclose(delta, other_delta, rtol=1e-9, atol=1e-12)
            if name != "out":
                np.testing.assert_allclose(x, other_x, rtol=1e-9)


def test_weights_and_gradients_are_views_of_flat_vectors():
    reading = trained(True)
    weights, gradients = reading.flat
    arrays = reading.arrays
    assert sum(view.size for view in arrays.weights.values()) == weights.size == gradients.size
    for name in arrays.weights:
        assert np.shares_memory(arrays.weights[name], weights)
        assert np.shares_memory(arrays.gradients[name], gradients)
    assert arrays.written_back
    assert not arrays.edited


def test_another_function_beside_a_step_reads_the_same_parameters():
    reading = trained(True)
    arrays, model = reading.arrays, reading.model
    graph = dp.capture(model.forward, X, gradient=False).captured
    forward = arrays.beside(graph, [])
    assert forward.shares_parameters
    assert np.shares_memory(forward.parameters, arrays.flat_weights)
    np.copyto(forward.arrays[graph.inputs[0]], X)
    forward.run()
    right = model.forward(X).value
    np.testing.assert_allclose(forward.arrays[graph.output], right, rtol=1e-12)
