"""Training twice, eagerly and compiled, and comparing what is left."""

import numpy as np

import dp

X = np.random.default_rng(0).normal(size=(40, 4))
Y = (np.arange(40) % 3 == 0)[:, None].astype(float)


class Small(dp.Model):
    """Two layers, and a loss that may be replaced by a function of (model, x, y)."""

    def __init__(self, loss=None, seed=0, dtype=np.float64):
        super().__init__(seed=seed, dtype=dtype)
        self.a = self.Linear_Layer(4, 3, "a")
        self.out = self.Linear_Layer(3, 1, "out")
        self.c = 1.0
        self.own = loss

    def forward(self, x):
        return self.out(self.a(x).tanh())

    def loss(self, x, y):
        if self.own is not None:
            return self.own(self, x, y)
        return (self.forward(x) - y).square().mean() * self.c


def trained(compiled, make=Small, callbacks=lambda sgd: [], optimiser=dp.SGD, steps=15, **options):
    """Parameters, gradient stores, and last loss of a training."""
    model = make()
    given = {"alpha": 0.05, **options.pop("hyperparam", {})}
    seed = options.pop("seed", 0)
    sgd = optimiser(model, X, Y, given, 8, seed=seed, compile=compiled, **options)
    sgd.callbacks = callbacks(sgd)
    loss = sgd.train(steps, print_each=None)
    return model.get_param(), sgd.grad_stores, loss


def same(found, right, tolerance=1e-9):
    """Assert that two trainings ended alike."""
    for mine, theirs in zip((found[0], *found[1]), (right[0], *right[1]), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(mine[name], value, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found[2], right[2], rtol=tolerance, atol=tolerance)


def alike(*arguments, **options):
    """Train eagerly and compiled, and assert that both end alike; gives the eager one."""
    right = trained(False, *arguments, **options)
    same(trained(True, *arguments, **options), right)
    return right
