"""What a program can be captured from and called with, and what is refused."""

import math

import numpy as np
import pytest
from tests.dp.cases import refused
from tests.dp.program.programs import Layers, X, Y, alike, close, net_and_batch

import dp
from dp import Node


def with_loss(loss):
    class Line(dp.Model):
        def __init__(self):
            super().__init__(seed=0)
            self.out = self.Linear_Layer(4, 1, "out")

    Line.loss = loss
    return Line()


RANDOM = np.random.default_rng(0)


def dropout(self, x, y):
    kept = np.random.rand(*x.shape) > 0.5
    return (self.out(x * kept) - y).square().sum()


def own_dropout(self, x, y):
    kept = RANDOM.random(x.shape) > 0.5
    return (self.out(x * kept) - y).square().sum()


def centred_outside(self, x, y):
    return (self.out(x - x.value.mean(axis=0, keepdims=True)) - y).square().sum()


def branching(self, x, y):
    error = (self.out(x) - y).square().sum()
    return error if error > 1.0 else error * 0.5


def hard_rows(self, x, y):
    error = (self.out(x) - y).square()
    return error[np.argsort(error.value[:, 0])[:2]].sum()


def branching_outside(self, x, y):
    h = self.out(x)
    return (h.tanh() if x.value[0, 0] == x.value[1, 0] else h).sum()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (dropout, "'loss' draws random numbers|'dropout' draws random numbers"),
        (own_dropout, "a constant of shape .* differs from call to call: it is random"),
        (centred_outside, "was computed from node.value"),
        (branching, "the truth of .* was asked for"),
        (lambda self, x, y: self.out(x).sum() * float(self.out(x).sum()), "the number of"),
        (hard_rows, "settings or operands of 'take' differ"),
        (branching_outside, "does .* for one batch and .* for another"),
        (lambda self, x, y: 3.0, "must give a Node to be captured, got float"),
    ],
)
def test_what_a_program_would_freeze_is_refused(loss, words):
    model = with_loss(loss)
    with refused(dp.CaptureError, words):
        dp.capture(model.loss, X, Y)
    with refused(dp.CaptureError, words):
        dp.SGD(model, X, Y, seed=0, compile=True).train(2, print_each=None)


def test_other_shapes_and_types_are_refused():
    net, x, y = net_and_batch()
    program = dp.capture(net.loss, x, y)
    with refused(dp.ShapeError, r"'x' was captured with shape \(12, 4\), got \(3, 4\)"):
        program(x[:3], y[:3])
    with refused(TypeError, "'x' was captured as float64, got float32"):
        program(x.astype(np.float32), y)
    with refused(TypeError, "takes 2 arguments, got 1"):
        program(x)
    assert program(x.astype(int), y)[1].dtype == np.float64


def test_a_column_of_labels_by_mistake_a_row():
    net, x, y = net_and_batch()
    with refused(dp.ShapeError, "the labels have shape"):
        dp.capture(net.loss, x, y.T)


class Own_Train(dp.SGD):
    def _train(self, *arguments):
        return None


def test_subclasses_that_a_program_would_pass_over():
    net, x, y = net_and_batch()
    with refused(ValueError, "Own_Train has its own _train"):
        Own_Train(net, x, y, compile=True)

    class Own_Grad(dp.Net):
        def get_grad(self, x, y):
            return super().get_grad(x, y)

    with refused(dp.CaptureError, "Own_Grad has its own get_grad"):
        dp.SGD(Own_Grad(4, 3, 1, seed=0), x, y, compile=True).train(1, print_each=None)
    with refused(TypeError, "the model must have get_param"):
        dp.SGD(object(), x, y, compile=True).train(1, print_each=None)


def test_a_named_node_that_is_not_a_parameter_would_be_frozen():
    model = with_loss(lambda self, x, y: (self.out(x) * Node(2.0, "scale") - y).square().sum())
    with refused(dp.CaptureError, "no parameters of the model: scale"):
        dp.SGD(model, X, Y, seed=0, compile=True).train(1, print_each=None)


def test_labels_are_looked_at_although_the_steps_do_not():
    y = Y.copy()
    y[7] = 0.5
    with refused(ValueError, "labels of the binary cross-entropy must be 0 or 1, got 0.5"):
        dp.SGD(dp.Net(4, 3, 1, seed=0), X, y, batch_size=1, seed=0, compile=True).train(1, None)


@pytest.mark.parametrize(
    "loss",
    [
        lambda m, x, y: m.out(x).sum() + (m.a.weight * m.a.weight.value.copy()).sum(),
        lambda m, x, y: m.out(x).sum() * float(1.0 / (1.0 + np.abs(m.out.weight.value).sum())),
    ],
)
def test_numbers_taken_from_parameters_are_found(loss):
    with refused(dp.CaptureError, "was computed from node.value"):
        dp.capture(Layers(loss).loss, X, Y)


def test_arguments_of_another_dtype_stay_arguments():
    net = dp.Net(4, 3, 2, "tanh", seed=0, dtype=np.float32)
    for rows in (1, 12):
        program = dp.capture(net.loss, X[:rows], Y[:rows])
        for sign in (1.0, -1.0):
            right, loss = net.get_grad(sign * X[:rows], Y[:rows])
            found, value = program(sign * X[:rows], Y[:rows])
            close(value, loss.value, np.float32)
            for name in right:
                close(found[name], right[name], np.float32)


def test_overridden_methods_that_a_program_would_pass_over():
    class Projected(dp.Net):
        def set_param(self, param):
            super().set_param({name: np.clip(v, -1, 1) for name, v in param.items()})

    with refused(dp.CaptureError, "Projected has its own set_param"):
        dp.SGD(Projected(4, 3, 1, seed=0), X, Y, compile=True).train(1, print_each=None)

    class Noisy(dp.SGD):
        def _batch(self, data, rows):
            return Node(super()._batch(data, rows).value * 0.5 if data is X else data[rows])

    alike(lambda: dp.Net(4, 3, 2, seed=0), lambda opt: opt.train(5, None), Noisy, seed=0)


def test_a_constant_loss():
    for compiled in (False, True):
        with refused(ValueError, "depends on none of its parameters"):
            sgd = dp.SGD(Layers(lambda m, x, y: Node(1.0) * 2.0), X, Y, seed=0, compile=compiled)
            sgd.train(1, print_each=None)


def test_a_sigmoid_is_quiet():
    net = dp.Net(4, 3, 1, "sigmoid", seed=0)
    net.get_param()["h1_weight"][...] = -5000.0
    dp.capture(net.loss, X, Y)(X, Y)
    with np.errstate(over="raise"):
        dp.SGD(net, X, Y, seed=0, compile=True).train(2, print_each=None)


def test_a_captured_step_makes_steps():
    net, other = (dp.Net(4, 3, 2, "tanh", seed=0) for _ in range(2))
    step = dp.capture(dp.Adam(net, X, Y, batch_size=12))
    for number in (1, 2):
        gradients, loss = step(X, Y, number)

    class All_Rows(dp.Adam):
        def random_batch(self):
            return Node(X), Node(Y)

    right, value = None, None
    seen = []
    adam = All_Rows(other, X, Y, callbacks=[lambda s: seen.append((s.grad, s.loss.value))])
    adam.train(2, print_each=None)
    right, value = seen[-1]
    close(loss, value)
    for name in right:
        close(gradients[name], right[name])
        close(net.get_param()[name], other.get_param()[name])
    with pytest.raises(dp.ShapeError, match=r"'x' was captured with shape \(12, 4\)"):
        step(X[:3], Y[:3])


def test_a_capture_is_cheap():
    """Less work than a hundred eager steps, counted in Nodes."""
    net, x, y = net_and_batch()
    made = []
    original = Node.record

    def counting(*arguments):
        made.append(1)
        return original(*arguments)

    Node.record = staticmethod(counting)
    try:
        dp.capture(net.loss, x, y)
        captured = len(made)
        made.clear()
        net.get_grad(x, y)
    finally:
        Node.record = staticmethod(original)
    assert captured < 10 * len(made)
    assert math.isfinite(captured)
