"""What a run says is a value, with its evidence."""

import json

import numpy as np
import pytest

from gradiometer.summary import Kind, in_words, judge
from gradiometer.summary.findings import Diverged, Judgement, Nets, Zeros
from gradiometer.trace import Trace

NAN = float("nan")
DIMS = ("step", "layer", "member")


def run_of(attrs=None, roles=None, missing=None, **quantities):
    """A run of these quantities, (steps, layers[, members])."""
    arrays = {name: np.array(values, float) for name, values in quantities.items()}
    steps, layers = next(iter(arrays.values())).shape[:2]
    coords = {"step": range(1, steps + 1), "layer": [f"l{i}" for i in range(layers)]}
    if roles is not None:
        coords["role"] = ("layer", roles)
    variables = {name: (DIMS[: a.ndim], a) for name, a in arrays.items()}
    masks = {name: np.array(mask, bool) for name, mask in (missing or {}).items()}
    return Trace.from_arrays(variables, coords, attrs or {}, masks)


@pytest.mark.parametrize(
    ("delta", "kind", "decades"),
    [
        ([1e-1, 1, 1], Kind.HEALTHY, 1.0),
        ([1e-4, 1, 1], Kind.VANISHING, 4.0),
        ([1e4, 1, 1], Kind.EXPLODING, -4.0),
        ([0.0, 1, 1], Kind.VANISHING, np.inf),
        ([NAN, 1, 1], Kind.UNKNOWN, NAN),
    ],
)
def test_a_chain_has_its_kind_and_evidence(delta, kind, decades):
    (chain,) = judge(run_of(delta_rms=[delta, delta])).chains
    assert chain.kind == chain.last.kind == kind
    assert chain.layers == ("l0", "l1", "l2")
    assert (chain.first.step, chain.last.step) == (1, 2)
    fall = chain.first.delta
    assert (fall.quantity, fall.last) == ("delta_rms", 1.0)
    np.testing.assert_equal(fall.first, delta[0])
    assert chain.first.decades == pytest.approx(decades, nan_ok=True)


def test_it_is_judged_by_the_delta_and_shown_by_the_gradient():
    flow = judge(run_of(grad_rms=[[0.1, 1]], delta_rms=[[1e-4, 1]])).chains[0].first
    assert flow.shown.quantity == "grad_rms"
    assert flow.shown.decades == pytest.approx(1)
    assert flow.decades == pytest.approx(4)
    assert flow.kind == Kind.VANISHING


def test_a_missing_delta_is_not_compared_and_one_that_is_not_finite_is():
    values = [[NAN, 0.1, 1.0]]
    missing = run_of(delta_rms=values, missing={"delta_rms": [[True, False, False]]})
    assert judge(missing).chains[0].layers == ("l1", "l2")
    (chain,) = judge(run_of(delta_rms=values)).chains
    assert (chain.layers, chain.kind) == (("l0", "l1", "l2"), Kind.UNKNOWN)


def test_zeros_say_where_and_why():
    weights = [[1.0, 1.0, 0.0]]
    run = run_of(grad_rms=[[0.0, 0.0, 1.0]], weight_rms=weights)
    assert judge(run).chains[0].first.zeros == Zeros(("l0", "l1"), below="l2")
    nets = run_of(grad_rms=[[[0.0, 0.0, 2.0], [1.0, 1.0, 1.0]]])
    assert judge(nets).chains[0].first.zeros == Zeros(("l0",), nets=Nets(2, 3))


def test_the_worst_chain_comes_first():
    attrs = {"chains": json.dumps([[0, 3], [1, 3], [2, 3]])}
    found = judge(run_of(attrs, delta_rms=[[0.5, 1e-5, 1e2, 1.0]])).chains
    assert [chain.layers[0] for chain in found] == ["l1", "l2", "l0"]
    assert [chain.kind for chain in found] == [Kind.VANISHING, Kind.HEALTHY, Kind.HEALTHY]


def test_what_diverged_is_told_with_its_place_though_the_rest_is_judged():
    attrs = {
        "nonfinite_step": 2, "nonfinite_layer": "l1", "nonfinite_in": "delta",
        "nonfinite_values": 3,
    }  # fmt: skip
    judgement = judge(run_of(attrs, delta_rms=[[0.1, 1.0], [NAN, NAN]]))
    assert judgement.diverged == Diverged(2, False, "l1", "delta", 3)
    assert judgement.diverged.kind == "non-finite"
    assert judgement.chains[0].first.kind == Kind.HEALTHY
    assert judgement.chains[0].last.kind == Kind.UNKNOWN
    alone = judge(run_of({"nonfinite_step": 1}, weight_rms=[[1.0]]))
    assert in_words(alone) == "The run diverged: the loss is not finite in step 1."


def test_nets_that_diverged_are_counted_by_what_was_recorded():
    gradient = np.ones((2, 2, 3))
    gradient[1, 0, 1] = np.inf
    run = run_of({"nonfinite_step": 2}, grad_rms=gradient)
    assert judge(run).diverged.nets == Nets(1, 3)


def test_further_findings():
    known = [[0.1, 0.1, 1.0], [0.1, 0.1, 1.0]]
    missing = {"grad_rms": [[True, True, False], [True, False, False]]}
    gradient = np.where(missing["grad_rms"], NAN, known)
    run = run_of(
        roles=["unreached", "frozen", "trained"],
        grad_rms=gradient,
        dead_fraction=[[0, 0, 0], [0.6, NAN, 0.9]],
        missing=missing,
    )
    judgement = judge(run)
    assert judgement.unreached.layers == ("l0",)
    assert judgement.unreached.first == "l2"
    assert (judgement.later.step, judgement.later.layers) == (2, ("l1",))
    assert judgement.dead.shares == (("l0", 0.6), ("l2", 0.9))
    kinds = [finding.kind for finding in judgement.findings]
    assert kinds == ["unreached", "healthy", "trained later", "dead"]


def test_findings_are_put_into_words_without_the_run():
    judgement = Judgement(described=True, roles=("trained",), diverged=Diverged(7, True))
    assert in_words(judgement) == "The run diverged: the loss is not finite by step 7."


def test_without_gradients_and_deltas_it_says_what_to_record():
    with pytest.raises(KeyError, match="record it with quantities="):
        judge(run_of(weight_rms=[[1.0]]))
