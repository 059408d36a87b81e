"""Layers may be called anything: every figure, file and table shows the name as text."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from gradiometer import plots
from gradiometer.experiment import Experiment
from gradiometer.plots.words import MOST_LETTERS, plain, printable
from gradiometer.reports.page import render
from gradiometer.trace import Trace
from gradiometer.verbs.output import save_figure

NAMES = {
    "broken mathtext": r"$\frac{$",
    "mathtext": "$x_1$",
    "one dollar": "costs $5",
    "escaped dollar": r"\$x\$",
    "underscore": "_",
    "private": "_hidden_",
    "empty": "",
    "long": "encoder.layers." * 30 + "out_proj",
    "line break": "a\nb\r\nc",
    "tab and escape": "a\tb\x1b[31mred",
    "null": "a\0b",
    "right to left": "שכבה",
    "turned around": "a\u202eb",
    "half a pair": "a\ud800b",
    "Chinese": "层一",
    "emoji": "🔥",
    "markup": "<script>alert('&')</script>",
    "formula": '=HYPERLINK("http://example.org")',
    "slashes": "../../etc/passwd",
}


@pytest.fixture(scope="module")
def trace():
    return Experiment.of(layers=2, width=3, steps=3, members=2, histograms=True).run()


@pytest.fixture(scope="module")
def small():
    """A trace of few quantities, for files."""
    recorded = {"quantities": ["grad_mean_abs", "delta_rms"], "decision": False}
    return Experiment.of(layers=2, width=3, steps=2, members=2, **recorded).run()


def called(trace, name):
    dataset = trace.dataset.assign_coords(layer=["first", name, "out"])
    if "decision_class" in dataset:
        dataset.attrs["class_names"] = json.dumps(["_a", "$b$"])
    return Trace(dataset)


@pytest.fixture(scope="module", params=[slice(0, 10), slice(10, 20)])
def strange(request):
    """A net whose layers have these names."""
    names = [*NAMES.values()][request.param]
    net = Experiment.of(layers=len(names) - 1, width=3, steps=2, members=2).run()
    return Trace(net.dataset.assign_coords(layer=names))


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_draws_them_as_text(name, strange, tmp_path):
    figure = getattr(strange.plot, name)()
    save_figure(figure, tmp_path / f"{name}.png")
    for text in figure.findobj(Text):
        # none of our own texts is a formula; ticks of axes are, and matplotlib's own
        if "mathdefault" not in text.get_text():
            assert text._preprocess_math(text.get_text())[1] is False, text


@pytest.mark.long
@pytest.mark.parametrize("name", plots.FIGURES)
@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_other_formats_draw_them_too(ending, name, strange, tmp_path):
    save_figure(getattr(strange.plot, name)(), tmp_path / f"figure.{ending}")


def test_legends_show_names_that_begin_with_an_underscore(trace):
    [legend] = called(trace, "_hidden").plot.gradients().legends
    assert any("_hidden" in text.get_text() for text in legend.get_texts())
    [classes] = called(trace, "h").plot.decision().legends
    assert [text.get_text() for text in classes.get_texts()] == [" _a", r"\$b\$"]


def test_long_names_keep_both_ends():
    shown = plain("encoder.layers.0." + "block." * 20 + "out_proj")
    assert len(shown) == MOST_LETTERS
    assert shown.startswith("encoder.")
    assert shown.endswith("block.out_proj")


def test_what_cannot_be_seen_is_spelt_out():
    assert printable("a\nb\x1b\u202e") == r"a\nb\x1b\u202e"
    assert printable("Schicht 1: φ層") == "Schicht 1: φ層"


@pytest.mark.parametrize("kind", NAMES)
def test_every_file_keeps_it(kind, small, tmp_path):
    name = NAMES[kind]
    shown = called(small, name)
    shown.attrs["nonfinite_layer"] = name
    # netCDF ends texts at a null character, and no file of text has halves of pairs
    stored = name.replace("\0", r"\x00").replace("\ud800", r"\ud800")
    shown.save(tmp_path / "trace.nc")
    again = Trace.load(tmp_path / "trace.nc")
    assert again.layers == ["first", stored, "out"]
    assert again.attrs["nonfinite_layer"] == stored
    np.testing.assert_array_equal(again.grad_w, small.grad_w)
    shown.to_csv(tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, lineterminator="\n")
    found = [str(text) for text in read["layer"].unique() if text not in ("first", "out", "")]
    if "\n" not in name and name:
        assert found == [f"'{stored}" if name.startswith("=") else stored]


@pytest.mark.parametrize("kind", NAMES)
def test_other_tools_are_given_it(kind, small, tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("tensorboardX")
    shown = called(small, NAMES[kind])
    stored = NAMES[kind].replace("\0", r"\x00").replace("\ud800", r"\ud800")
    shown.to_parquet(tmp_path / "t.parquet")
    assert stored in set(pd.read_parquet(tmp_path / "t.parquet")["layer"])
    shown.to_tensorboard(tmp_path / "board")
    assert [*(tmp_path / "board").glob("member_*/*")]


@pytest.mark.parametrize("kind", NAMES)
def test_reports_escape_it(kind):
    page = render("page.html", name=NAMES[kind])
    assert "<script>alert" not in page


# --- spreadsheets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "'"])
def test_no_cell_of_text_begins_a_formula(start, small, tmp_path):
    name = f"{start}1+1"
    called(small, name).to_csv(tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv", lineterminator="\n")
    assert set(read["layer"].dropna()) == {"first", f"'{name}", "out"}
    # numbers are numbers still, negative ones too
    assert read["value"].dtype == np.float64
    same = called(small, name).to_dataframe()
    np.testing.assert_array_equal(read["value"], same["value"])
    originals = {text.removeprefix("'") for text in read["layer"].dropna()}
    assert originals == set(same["layer"].dropna())


def test_what_needs_no_apostrophe_has_none(small, tmp_path):
    small.to_csv(tmp_path / "t.csv")
    assert "'" not in (tmp_path / "t.csv").read_text()
