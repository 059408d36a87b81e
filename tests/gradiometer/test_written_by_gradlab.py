"""Files that the project wrote under its first name still load."""

import shutil
from pathlib import Path

import pytest

from gradiometer.claims.proofs import Proofs
from gradiometer.studies import load
from gradiometer.trace import Trace, TraceError

OLD = Path(__file__).parent / "written_by_gradlab"
TRACE = OLD / "study/results/66ede0b1f66cf1d8.nc"


def test_a_trace_loads_and_is_verified(tmp_path):
    trace = Trace.load(TRACE)
    assert '"gradlab": "0.1.0"' in trace.attrs["versions"]
    assert trace.grad_w.shape == (3, 2, 2)  # layers, steps, members
    damaged = bytearray(TRACE.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.nc").write_bytes(damaged)
    with pytest.raises(TraceError, match="damaged"):
        Trace.load(tmp_path / "damaged.nc")


def test_it_is_sealed_anew_when_saved(tmp_path):
    trace = Trace.load(TRACE)
    trace.save(tmp_path / "new.nc")
    assert b"\ngradiometer result " in (tmp_path / "new.nc").read_bytes()[-100:]
    assert Trace.load(tmp_path / "new.nc").dataset.equals(trace.dataset)


def test_a_study_loads_and_resumes_without_computing(tmp_path):
    shutil.copytree(OLD / "study", tmp_path / "study")
    results = load(tmp_path / "study")
    assert len(results.outcomes) == 4
    files = list((tmp_path / "study/results").iterdir())
    before = [(file, file.stat().st_mtime_ns) for file in files]
    assert len(list(results.study.run(tmp_path / "study", resume=True, workers=1))) == 2
    assert [(file, file.stat().st_mtime_ns) for file in files] == before


def test_proofs_load():
    assert [p.name for p in Proofs.from_json((OLD / "proofs.json").read_text()).proofs] == [
        "sigmoid-slope",
        "tanh-range",
    ]
