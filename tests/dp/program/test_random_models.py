"""Random models, losses, optimisers and callbacks: compiled training is eager training, or refused.

Each program is drawn from a seed: layers of several widths, a loss with constants that lie in
attributes, lists, closures and arrays, an optimiser, a batch size; and mutations, which change any
of that at random steps, look at values, draw numbers, count, or edit gradients.
"""

import itertools
from collections import Counter

import numpy as np
import pytest

import dp
from dp import Node
from dp import primitives as p

X = np.random.default_rng(0).normal(size=(60, 4))
Y = (np.arange(60) % 3 == 0)[:, None].astype(float)
FUNCTIONS = ("tanh", "sigmoid", "relu", "softplus", "gelu", "silu", "elu", "leaky_relu")


class Holder:
    """An object with settings of its own."""

    def __init__(self, factor):
        self.factor, self.parts, self.row = factor, [factor, 0.5], np.full((1, 1), factor)


class Drawn(dp.Model):
    """A model of random layers whose loss reads its constants in random places."""

    def __init__(self, rng, members):
        seed = int(rng.integers(1000))
        dtype = np.float32 if rng.random() < 0.15 else np.float64
        super().__init__(seed=[seed, seed + 1] if members else seed, dtype=dtype)
        widths = [4, *rng.integers(1, 6, size=rng.integers(1, 4)), 1]
        self.parts = [
            self.Linear_Layer(int(a), int(b), f"l{i}")
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        ]
        self.functions = [str(name) for name in rng.choice(FUNCTIONS, len(self.parts) - 1)]
        self.scale, self.holder, self.frozen = 1.0, Holder(0.75), False
        self.where = str(rng.choice(["attribute", "object", "list", "array", "closure", "none"]))
        self.kind = str(rng.choice(["squared", "cross", "absolute", "penalised"]))
        self.impurity = ""
        self.closure = [0.5]
        self.rng = np.random.default_rng(0)
        self.calls = 0

    def forward(self, x):
        for layer, name in zip(self.parts, self.functions, strict=False):
            x = getattr(layer(x), name)()
        if self.frozen:
            x = x * 0.5
        return self.parts[-1](x)

    def factor(self):
        return {
            "attribute": lambda: self.scale,
            "object": lambda: self.holder.factor,
            "list": lambda: self.holder.parts[0],
            "array": lambda: self.holder.row,
            "closure": lambda: self.closure[0],
            "none": lambda: 1.0,
        }[self.where]()

    def loss(self, x, y):
        h = self.forward(x)
        if self.kind == "cross":
            loss = dp.binary_cross_entropy(h, y, "mean")
        elif self.kind == "absolute":
            loss = p.where(h > y, h - y, (y - h) * 0.5).mean()
        else:
            loss = (h - y).square().mean()
        if self.kind == "penalised":
            loss = loss + self.parts[0].weight.square().sum() * 0.01
        return self.impure(loss * self.factor(), x, h)

    def impure(self, loss, x, h):
        return loss


class Branching(Drawn):
    def impure(self, loss, x, h):
        return loss * 0.1 if x.value[..., 0, 0].max() > 1.2 else loss


class Looking(Drawn):
    def impure(self, loss, x, h):
        self.seen = float(h.value.max())
        return loss


class Drawing(Drawn):
    def impure(self, loss, x, h):
        return loss * (0.1 if self.rng.random() < 0.05 else 1.0)


class Counting(Drawn):
    def impure(self, loss, x, h):
        self.calls += 1
        return loss * (0.1 if self.calls > 12 else 1.0)


class Keeping(Drawn):
    def impure(self, loss, x, h):
        self.last = h
        return loss


class Masking(Drawn):
    def impure(self, loss, x, h):
        with dp.no_grad():
            kept = h > 3.0
        return loss + (h * kept).sum() * 0.01


MODELS = (*[Drawn] * 14, Branching, Looking, Drawing, Counting, Keeping, Masking)


def mutations(rng, sgd, steps):
    """Callbacks that change something in random steps, made anew for each training."""
    model, found = sgd.model, []
    names = list(model.get_param())
    for _ in range(rng.integers(0, 4)):
        kind = str(rng.choice(list(MUTATIONS)))
        start, every = int(rng.integers(1, steps)), int(rng.choice([1, 3, 1000]))
        name, number = str(rng.choice(names)), float(rng.normal())
        found.append(MUTATIONS[kind](model, sgd, start, every, name, number))
    return found


def due(step, start, every):
    return step.number >= start and (step.number - start) % every == 0


def after(change):
    """A mutation that is made after the update."""

    def make(model, sgd, start, every, name, number):
        def callback(step):
            if due(step, start, every):
                change(model, sgd, step, name, number)

        return callback

    return make


def before(change):
    """A mutation that is made before the update."""

    def make(model, sgd, start, every, name, number):
        callback = dp.Callback()

        def change_when_due(step):
            if due(step, start, every):
                change(model, sgd, step, name, number)

        callback.before_update = change_when_due
        return callback

    return make


MUTATIONS = {
    "attribute": after(lambda m, o, s, name, v: setattr(m, "scale", v)),
    "object": after(lambda m, o, s, name, v: setattr(m.holder, "factor", v)),
    "list": after(lambda m, o, s, name, v: m.holder.parts.__setitem__(0, v)),
    "array": after(lambda m, o, s, name, v: m.holder.row.fill(v)),
    "closure": after(lambda m, o, s, name, v: m.closure.__setitem__(0, v)),
    "another holder": after(lambda m, o, s, name, v: setattr(m, "holder", Holder(v))),
    "kind": after(lambda m, o, s, name, v: setattr(m, "kind", "absolute")),
    "frozen": after(lambda m, o, s, name, v: setattr(m, "frozen", not m.frozen)),
    "function": after(lambda m, o, s, name, v: m.functions.__setitem__(0, "tanh")),
    "activation": after(lambda m, o, s, name, v: setattr(m.parts[0], "activation", Node.tanh)),
    "rate": after(lambda m, o, s, name, v: setattr(o, "alpha", o.alpha * 0.5)),
    "batch": after(lambda m, o, s, name, v: setattr(o, "batch_size", 2 + int(abs(v) * 10) % 7)),
    "data": after(lambda m, o, s, name, v: setattr(o, "x_train", o.x_train * 0.9)),
    "parameters": after(lambda m, o, s, name, v: s.param[name].fill(v * 0.1)),
    "stores": after(lambda m, o, s, name, v: [store[name].fill(0.0) for store in o.grad_stores]),
    "new stores": after(
        lambda m, o, s, name, v: setattr(
            o, "grad_stores", [{k: a * 0.5 for k, a in x.items()} for x in o.grad_stores]
        )
    ),
    "draws": after(lambda m, o, s, name, v: np.random.rand()),
    "unrelated": after(lambda m, o, s, name, v: setattr(m, "history", v)),
    "delete": before(lambda m, o, s, name, v: s.grad.pop(name, None)),
    "clear": before(lambda m, o, s, name, v: s.grad.clear()),
    "replace": before(lambda m, o, s, name, v: s.grad.update({name: s.param[name] * 0.1})),
    "by a number": before(lambda m, o, s, name, v: s.grad.update({name: v * 0.1})),
    "clip": before(lambda m, o, s, name, v: [np.clip(g, -0.1, 0.1, out=g)
                                            for g in s.grad.values() if isinstance(g, np.ndarray)]),
    "replace a parameter": before(
        lambda m, o, s, name, v: s.param.update({name: s.param[name] * 0.9})
    ),
}  # fmt: skip


class Own(dp.SGD_Momentum):
    def _update(self, param, grad, g, i):
        self.grad_stores[0][g] = self.grad_stores[0][g] * 0.5 + np.sign(grad[g])
        param[g] = param[g] - self.alpha * self.grad_stores[0][g]


def train(seed, compiled):
    """Parameters, stores and loss, and where the streams of random numbers stand afterwards."""
    rng = np.random.default_rng(seed)
    members = rng.random() < 0.2
    model = MODELS[rng.integers(len(MODELS))](rng, members)
    optimiser = [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam, Own][rng.integers(5)]
    steps, seeded = int(rng.integers(2, 30)), rng.random() < 0.8
    own = None if not seeded else [3, 4] if members else 3
    np.random.seed(seed)
    given = {"alpha": float(rng.choice([0.001, 0.02]))}
    batch = int(rng.integers(1, 20))
    sgd = optimiser(model, X, Y, given, batch, seed=own, compile=compiled)
    sgd.callbacks = mutations(rng, sgd, steps)
    with np.errstate(all="ignore"):
        loss = sgd.train(steps, print_each=None)
    following = sgd._streams[0].random() if seeded else np.random.rand()
    return [*model.get_param().values(), *(v for s in sgd.grad_stores for v in s.values()), loss,
            np.array(following)]  # fmt: skip


def compare(seed):
    """Train one random program twice; "equal", "refused", or "failed" where both raise alike."""
    try:
        right = train(seed, False)
    except Exception as error:
        with pytest.raises((type(error), dp.CaptureError)):
            train(seed, True)
        return "failed"
    try:
        found = train(seed, True)
    except dp.CaptureError:
        return "refused"
    tolerance = 1e-7 if right[0].dtype == np.float64 else 2e-3  # the parameters' dtype
    for mine, theirs in zip(found, right, strict=True):
        scale = float(np.abs(theirs).max(initial=1e-3))
        np.testing.assert_allclose(
            mine, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=f"seed {seed}"
        )
    return "equal"


def count(seeds):
    outcomes = Counter(compare(seed) for seed in seeds)
    print(dict(outcomes))
    assert outcomes["equal"] > 0.6 * len(seeds)  # of the models, 15 in 20 can be captured
    assert outcomes["refused"] > 0.05 * len(seeds)
    assert outcomes["failed"] < 0.1 * len(seeds)


def test_random_programs():
    count(range(60))


@pytest.mark.long
def test_many_random_programs():
    count(range(60, 1060))
