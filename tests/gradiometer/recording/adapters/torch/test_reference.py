"""A reference batch is checked, and what of it cannot be measured says why."""

import copy
import os
import re
import sys

import numpy as np
import pytest

from gradiometer import record

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.frameworks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4))
Y = RNG.integers(0, 3, 32)
X_T, Y_T = torch.from_numpy(X).float(), torch.from_numpy(Y)


class Net(nn.Module):
    """Its output is handed to a function."""

    def __init__(self, outputs=3, end=lambda out: out):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, outputs)
        self.end = end

    def forward(self, x, scale=None):
        x = x if scale is None else x * scale
        return self.end(self.head(self.body(x)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def train(net, reference, **settings):
    """One step on a batch of its own."""
    sgd = torch.optim.SGD(net.parameters(), lr=0.0)
    with record(net, sgd, reference=reference, **settings) as recorder:
        net.head(net.body(X_T)).square().sum().backward()
        sgd.step()
    return recorder


def predicted(net, x=X_T):
    twin = copy.deepcopy(net).eval()
    with torch.no_grad():
        return twin(x).numpy()


def share(net, labels):
    return np.mean(predicted(net).argmax(axis=1) == labels)


# --- what is a reference batch --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "got"),
    [
        (X_T, r"got Tensor; without labels it is \(x, None\)"),
        (X_T[:2], "got Tensor"),
        (X[:2], "got ndarray"),
        (DataLoader(TensorDataset(X_T, Y_T)), r"got DataLoader; .*next\(iter\(loader\)\)"),
        ((X_T, X_T, Y_T), r"got a tuple of 3; .*\(\(a, b\), y\)"),
        ([X_T], "got a list of 1"),
        ({"x": X_T, "y": Y_T}, "got dict"),
        ("xy", "got str"),
    ],
)
def test_what_is_no_pair(reference, got):
    with pytest.raises(TypeError, match=rf"reference must be a pair \(x, y\) of .*, {got}"):
        record(Net(), reference=reference)


@pytest.mark.parametrize(
    "x", [X_T[:0], X[:0], (X_T[:0], X_T[:0]), ("scale", X_T[:0]), torch.empty(3, 0, 4)]
)
def test_an_empty_batch(x):
    with pytest.raises(ValueError, match=r"has no samples: x has the shape \(.*0, 4\)"):
        record(Net(), reference=(x, None))


def test_samples_that_are_no_numbers():
    with pytest.raises(TypeError, match=r"x of the reference batch is an array of <U1.*float32"):
        record(Net(), reference=(np.array(["a", "b"]), None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_arrays_become_tensors_of_the_models_dtype(dtype):
    net, seen = Net().to(dtype), []
    net.register_forward_pre_hook(lambda module, args: seen.extend(args))
    fixed = X[::-1].astype(">f8")
    fixed.flags.writeable = False
    with record(net, reference=((fixed, X[:1, :1]), list(Y[::-1]))) as recorder:
        pass
    net.double()  # it may change until it is used
    recorder.before_step()
    recorder.after_step(0.0)
    assert [x.dtype for x in seen] == [torch.float64] * 2
    np.testing.assert_array_equal(seen[0], X[::-1])
    np.testing.assert_allclose(seen[1], X[:1, :1])
    assert np.isfinite(recorder["accuracy"]).all()


def test_arrays_of_integers_stay_integers():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    recorder = record(net, reference=(RNG.integers(0, 5, (32, 2)), Y))
    recorder.before_step()
    recorder.after_step(0.0)
    assert np.isfinite(recorder["accuracy"]).all()
    assert recorder.missing.get("(model)") is None


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        Y,
        Y[:, None],
        Y.astype(float),
        Y.astype(np.float32)[:, None],
        Y.astype(np.uint8),
        Y.tolist(),
        Y_T,
        Y_T[:, None],
        Y_T.half(),
        np.eye(3)[Y],
        np.eye(3, dtype=int)[Y],
        0.8 * np.eye(3)[Y] + 0.2 / 3,
        torch.eye(3).bfloat16()[Y_T].requires_grad_(),
        torch.eye(3)[Y_T].to_sparse(),
    ],
)
def test_labels_of_several_classes(labels):
    net = Net()
    recorder = train(net, (X_T, labels))
    assert recorder["accuracy"].tolist() == [share(net, Y)]
    assert recorder.accuracy == share(net, Y)
    assert "(model)" not in recorder.missing
    assert net.training
    assert net.body[2].training


@pytest.mark.parametrize("labels", [Y > 0, (Y > 0).astype(float)[:, None], Y_T > 0])
def test_labels_of_two_classes(labels):
    net = Net(1)
    recorder = train(net, (X_T, labels))
    assert recorder["accuracy"].tolist() == [np.mean((predicted(net)[:, 0] > 0) == (Y > 0))]
    assert "(model)" not in recorder.missing


def test_one_sample_and_one_number():
    net = Net()
    labels = predicted(net, X_T[:1]).argmax()
    assert train(net, (X_T[:1], labels))["accuracy"].tolist() == [1]


TARGETS = RNG.normal(size=32)


@pytest.mark.parametrize(
    ("net", "labels", "why"),
    [
        (Net(), TARGETS, r"the label 0?-?\d.* is no class number; accuracy needs 0 to 2"),
        (Net(), Y + 5.0, r"the label \d is no class number"),
        (Net(), np.where(Y, np.nan, Y), "the label nan is no class number"),
        (Net(), np.stack([TARGETS] * 3, axis=1), "rows of the labels do not add up to 1"),
        (Net(), np.ones((32, 3)), "rows of the labels do not add up to 1"),
        (Net(), np.eye(4)[Y], r"labels have the shape \(32, 4\), .* output \(32, 3\); .*one-hot"),
        (Net(), ["a"] * 32, "labels are of type list; accuracy needs class numbers"),
        (Net(), np.array(["a"] * 32), "labels are of type <U1; accuracy needs"),
        (Net(), {"boxes": Y_T}, "labels are of type dict"),
        (Net(), torch.complex(X_T, X_T), "labels are of type torch.complex64"),
        (Net(1), TARGETS, r"has one output, and the label .* is neither 0 nor 1"),
        (Net(1), Y, "has one output, and the label 2 is neither 0 nor 1"),
        (Net(1), np.eye(3)[Y], r"labels have the shape \(32, 3\), .* output \(32, 1\)"),
        (Net(1, lambda h: h.exp() / (1 + h.exp())), Y > 0, "logits or probabilities cannot be"),
        (Net(3, lambda h: h.reshape(8, 4, 3)), Y, r"output has the shape \(8, 4, 3\); accuracy"),
        (Net(3, torch.sum), Y, r"output has the shape \(\); accuracy needs \(samples,\) or"),
        (Net(3, lambda h: h[:, :0]), Y, r"output has the shape \(32, 0\)"),
        (Net(3, lambda h: {"logits": h}), Y, "output is of type dict; accuracy needs a tensor"),
        (Net(3, lambda h: (h, h)), Y, "output is of type tuple"),
        (Net(3, lambda h: h[:3]), Y, "output has 3 rows for 32 samples; accuracy needs one for"),
    ],
)
def test_why_there_is_no_accuracy(net, labels, why):
    recorder = train(net, (X_T, labels))
    found = recorder.missing.get("(model)", {})
    assert np.isnan(recorder["accuracy"]).all()
    assert list(found) == ["accuracy"]
    assert re.search(why, found["accuracy"]), found
    known = np.isfinite(recorder["dead_fraction"]).all()
    # a sigmoid written out is several functions of the output
    assert known or "several functions" in recorder.missing["head"]["dead_fraction"]
    assert known or "probabilities" in why


def test_labels_that_are_not_asked_for_may_be_anything():
    recorder = train(Net(), (X_T, Y[:5] + 9), quantities=["dead_fraction"])
    assert "(model)" not in recorder.missing
    assert "(model)" not in train(Net(), (X_T, None)).missing


@pytest.mark.parametrize(
    ("net", "labels", "words"),
    [
        (Net(), Y[:5], "the reference batch has 32 samples, but 5 labels; they must be as many"),
        (Net(1), Y[:0], "the reference batch has 32 samples, but 0 labels; they must be as many"),
        (Net(), Y_T[0], "the reference batch has 32 samples, but 1 labels"),
        (Net(3, lambda h: h[:3]), Y[:5], "output on the reference batch has 3 rows, but .* 5 labe"),
        (Net(), Y + 5, "has the label [567], but the model has 3 outputs; .* from 0 to 2"),
        (Net(), Y_T - 3, "has the label -[123], but the model has 3 outputs; .* from 0 to 2"),
        (Net(), np.where(Y == 0, 2**40 + 1, Y), "the label 1099511627777, but the model has 3"),
    ],
)
def test_wrong_labels(net, labels, words):
    with pytest.raises(ValueError, match=words):
        train(net, (X_T, labels))
    assert is_clean(net)


def test_samples_along_another_axis_of_x():
    """As recurrent nets take them: the first axis is time."""
    net = Net(3, lambda h: h.mean(axis=0))
    labels = torch.zeros(8, dtype=torch.int64)
    recorder = train(net, (X_T.reshape(4, 8, 4), labels))
    assert np.isfinite(recorder["accuracy"]).all()


# --- samples that the model does not take ---------------------------------------------------------


def is_clean(net):
    """No hook stays behind, and the model is in training mode."""
    module = torch.nn.modules.module
    optimizer = sys.modules["torch.optim.optimizer"]
    hooks = [
        module._global_forward_hooks, module._global_forward_pre_hooks,
        module._global_forward_hooks_always_called,
        optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks,
        *(m._forward_hooks for m in net.modules()), *(p._backward_hooks for p in net.parameters()),
    ]  # fmt: skip
    return not any(hooks) and all(m.training for m in net.modules()) and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (torch.zeros(5, 7), r"of shape \(5, 7\), torch\.float32"),
        (np.zeros((5, 7)), r"of shape \(5, 7\), torch\.float32"),
        (X_T.double(), r"of shape \(32, 4\), torch\.float64"),
        (
            (X_T, torch.zeros(3, dtype=torch.int64)),
            r"of shape \(32, 4\), torch\.float32 and of shape \(3,\), torch\.int64",
        ),
        ([X_T], "of type list"),
    ],
)
def test_an_error_of_the_model_says_what_it_was_run_on(x, shown):
    net = Net()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd, reference=(x, None)) as recorder:
        net.head(X_T.repeat(1, 2)).sum().backward()
        with pytest.raises((RuntimeError, TypeError)) as caught:
            sgd.step()
    (note,) = caught.value.__notes__
    assert re.fullmatch(rf"while the model was run on reference=…, x {shown}", note), note
    assert is_clean(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert recorder.n_steps == 0
