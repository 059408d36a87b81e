"""All passes together: graphs of many forms, random and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dp.program.programs import BINARY, UNARY, Layers, X, Y, close, run_page

import dp
from dp import Node
from dp import primitives as p
from dp.program.step import TrainingStep


def rooted(h):
    return (h.square() + 1.0).sqrt()


def kept(h):
    return p.where(h > 0.1, h, 0.0)


def gates(m, x, y):
    g = m.c(x)
    return (m.out(m.a(x) * g.sigmoid() + m.b(x) * (1.0 - g.sigmoid())) - y).square().sum()


def scaled_inputs(m, x, y):
    parts = [m.out(layer(x * k).tanh()) - y for layer, k in ((m.a, 2.0), (m.b, 3.0), (m.c, 4.0))]
    return sum(part.square().sum() for part in parts) + 0.1 * m.b.weight.square().sum()


def masks(m, x, y):
    v = kept(m.c(x))
    return (m.out(m.a(v) * kept(m.b(v))) - y).square().mean() + kept(v).sum() * 0.1


def roots(m, x, y):
    h = m.a(x)
    return (m.out(rooted(m.b(h))) - y).square().sum() + rooted(h).sum() * 0.1


def branches(m, x, y):
    h = m.a(x).tanh()
    return (m.out(h + m.b(h).tanh() + m.c(h).tanh()) - y).square().sum()


def without_a_stack(m, x, y):
    targets = [y * 2.0 + 1.0, y * 3.0 + 1.0]
    q = [layer(x).tanh() - t.tanh() for layer, t in zip((m.a, m.b), targets, strict=True)]
    return (q[0] * q[1]).concatenate(q[0].square()).sum()


LOSSES = {
    "two layers of one input": lambda m, x, y: (m.out(m.a(x) + m.b(x)) - y).square().sum(),
    "two layers of one input, added up": lambda m, x, y: (m.a(x) + m.b(x) - y).square().sum(),
    "blocks apart": scaled_inputs,
    "gates": gates,
    "a swish gate": lambda m, x, y: m.out(m.a(x).sigmoid() * m.b(x).silu()).square().sum(),
    "an input that all share": masks,
    "ones that must stay": roots,
    "branches": branches,
    "inputs without a stack": without_a_stack,
    "the same layer in a row": lambda m, x, y: m.out(m.a(m.a(m.a(x).tanh()).tanh())).sum(),
    "a loss of a parameter alone": lambda m, x, y: m.a.weight.square().sum() * 0.5,
}


@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize("seed", [0, [0], [0, 1]], ids=["one", "stack of one", "two"])
@pytest.mark.parametrize("name", LOSSES)
def test_graphs_of_many_forms(name, seed, rows):
    model, rng = Layers(LOSSES[name], seed), np.random.default_rng(rows)
    stack = () if seed == 0 or name == "inputs without a stack" else (len(seed),)
    batches = [
        (rng.normal(size=(*stack, rows, 4)), rng.normal(size=(*stack, rows, 1))) for _ in range(3)
    ]
    program = dp.capture(model.loss, *batches[0])
    for x, y in [batches[0], (batches[1][0] * np.nan, batches[1][1]), *batches]:
        with np.errstate(all="ignore"):
            right, loss = model.get_grad(Node(x), Node(y))
            found, value = program(x, y)
            page = run_page(program.source, "loss_gradients", x, y, model.get_param())
        if np.isfinite(loss.value).all():
            largest = max(np.abs(g).max() for g in right.values())
            for given, output in ((found, value), page):
                close(output, loss.value, least=1.0)
                for parameter in right:
                    close(given[parameter], right[parameter], least=largest)
        for value in model.get_param().values():
            value += 0.01 * rng.normal(size=value.shape)


@st.composite
def models(draw):
    """Rows, members, dtype, and operations between layers that may be used again and again."""
    operations = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["layer", "unary", "binary"]),
                st.integers(0, 99),
                st.integers(0, 99),
                st.integers(0, 99),
            ),
            min_size=2,
            max_size=16,
        )
    )
    few = draw(st.lists(st.sampled_from(sorted(set(UNARY) - {"layer 1", "layer 2", "layer 3"})),
                        min_size=1, max_size=3))  # fmt: skip
    return (
        operations,
        few,
        draw(st.sampled_from([1, 2, 5])),
        draw(st.sampled_from([0, [0], [0, 1]])),
    )


@settings(max_examples=150, deadline=None)
@given(described=models(), number=st.integers(0, 3))
def test_random_models(described, number):
    operations, few, rows, seed = described

    def loss(m, x, y):
        values = [x, m.a(x), m.b(x)]
        for kind, which, first, second in operations:
            one, other = values[-1 - first % len(values)], values[-1 - second % len(values)]
            if kind == "layer":
                values.append(getattr(m, "abcdef"[which % 6])(one))
            elif kind == "unary" and not (few[which % len(few)] == "rows" and rows < 3):
                values.append(UNARY[few[which % len(few)]](one))
            elif one.shape == other.shape:
                values.append(list(BINARY.values())[which % len(BINARY)](one, other))
        return (m.out(values[-1]).mean() + values[len(values) // 2].mean()).tanh()

    model, rng = Layers(loss, seed), np.random.default_rng(number)
    stack = () if seed == 0 else (len(seed),)
    x, y = rng.normal(size=(*stack, rows, 4)), np.zeros((*stack, rows, 1))
    with np.errstate(all="ignore"):
        right, value = model.get_grad(Node(x), Node(y))
        largest = max(float(np.abs(g).max()) for g in right.values())
        if not largest < 100.0:
            return
        program = dp.capture(model.loss, x, y)
        step = TrainingStep(dp.SGD(model, X, Y, {"alpha": 1e-300}), x, y, 0)
        for given in (program, program, step, step):
            found, output = given(x, y)
            close(output, value.value, least=1.0)
            for name in right:
                np.testing.assert_allclose(found[name], right[name], rtol=1e-9, atol=1e-9)


def test_a_model_with_weights_used_twice_and_a_penalty():
    class Shared(dp.Model):
        def __init__(self):
            super().__init__(seed=0)
            self.hidden = self.Linear_Layer(4, 4, "hidden")
            self.out = self.Linear_Layer(4, 1, "out")

        def loss(self, x, y):
            h = self.hidden(self.hidden(x).tanh()).tanh()
            return (self.out(h) - y).square().sum() + 0.1 * self.out.weight.square().sum()

    results = []
    for compiled in (False, True):
        net = Shared()
        dp.SGD(net, X, Y, {"alpha": 0.0003}, seed=0, compile=compiled).train(20, print_each=None)
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)
