"""What a number of seeds can show is told before the run, and agrees with the tests."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from gradiometer.claims import CLAIMS, Proofs
from gradiometer.claims import statistics as s
from gradiometer.claims.laboratory import Laboratory
from gradiometer.claims.power import best, not_shown, too_few
from gradiometer.cli import app
from gradiometer.reports.proofs import page


@pytest.mark.parametrize("kind", ["rank", "equivalence", "share", "shift"])
@pytest.mark.parametrize("nets", [5, 6, 9, 20])
def test_no_data_give_a_smaller_p_than_the_best(kind, nets):
    rng = np.random.default_rng(nets)
    least = best(kind, nets).p
    if kind != "shift":
        assert least == pytest.approx(0.5**nets)
    elif nets <= 8:  # of more SciPy takes the normal law, whose least p is larger
        assert least == pytest.approx(1 / math.comb(2 * nets, nets))
    for _ in range(30):
        a, b = rng.normal(1, 0.3, nets), rng.normal(0, 0.3, nets)
        found = {
            "rank": lambda a, b: s.signed_rank("", a, b, ""),
            "equivalence": lambda a, b: s.equivalence("", b / 30, ""),
            "share": lambda a, b: s.most("", a > b),
            "shift": lambda a, b: s.mann_whitney("", a, b, ""),
        }[kind](a, b)
        assert found.p >= least * (1 - 1e-9)


def test_how_many_seeds_are_enough_is_exact():
    claims = [*CLAIMS.values()]
    assert too_few(claims, 50) == too_few(claims, 10) == {}
    for name, why in too_few(claims, 5).items():
        enough = int(why.split("; ")[1].split()[0])
        for seeds, expected in ((enough - 1, True), (enough, False)):
            missing = {claim.name for claim in not_shown(claims, Laboratory(seeds))}
            assert (name in missing) is expected


def test_power_is_told_before_the_run_and_kept(tmp_path):
    names = ["sigmoid-does-not-learn", "relu-slope"]
    done = CliRunner().invoke(app, ["prove", *names, "--seeds", "5", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    warned = "warning: sigmoid-does-not-learn: 5 seeds cannot show it"
    assert done.output.index(warned) < done.output.index("Claims, tested with")
    assert "warning: relu-slope" not in done.output
    text = (tmp_path / "proofs.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    assert "5 seeds cannot show it" in kept["too_few"]["sigmoid-does-not-learn"]
    proofs = Proofs.from_json(text)
    assert proofs.too_few == kept["too_few"]
    assert str(proofs["sigmoid-does-not-learn"].verdict) == "undecided"
    assert "5 seeds cannot show it" in proofs["sigmoid-does-not-learn"].reason
    assert "5 seeds cannot show it" in page(proofs, {})


@pytest.mark.parametrize(
    "finding",
    [
        s.signed_rank("", np.arange(5.0), np.zeros(5), ""),
        s.equivalence("", np.arange(5.0), ""),
        s.mann_whitney("", np.arange(2.0), np.arange(2.0), ""),
        s.most("", np.zeros(0, bool)),
        s.signed_rank("", np.full(9, np.nan), np.zeros(9), ""),
    ],
)
def test_an_interval_that_is_missing_says_why(finding):
    from gradiometer.reports.page import effect_in_words

    assert math.isnan(finding.low)
    assert finding.no_interval
    words = effect_in_words(finding.effect, finding.low, finding.high, "", finding.no_interval)
    assert f"[no interval: {finding.no_interval}]" in words
