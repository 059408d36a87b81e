"""What the pages tell a reader to type works: Python and commands, page by page, in one folder."""

import functools
import importlib
import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dp
from dp.optimizers import OPTIMIZERS
from gradiometer.cli import app
from gradiometer.data import DATASETS, load
from gradiometer.plots import FIGURES
from gradiometer.quantities import HISTOGRAM, QUANTITIES
from gradiometer.remedies import CANDIDATES
from gradiometer.settings import SETTINGS
from gradiometer.verbs import run_folder

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = {"frameworks": ("torch", "lightning", "jax", "keras"), "remedies": ("torch",)}
TAKE_LONG = ("README", "proofs", "studies")  # claims, papers, and studies of hundreds of nets
COMMAND = re.compile(r"(?:\.venv/bin/)?gradiometer ")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def marks(page):
    return [pytest.mark.long] * (page in TAKE_LONG) + [pytest.mark.frameworks] * (page in NEEDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all pages, as a reader has one: what they write must not collide."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=marks(page.stem)) for page in PAGES],
    ids=[page.stem for page in PAGES],
)
def test_what_the_page_says_to_type_works(page, folder, monkeypatch):
    for framework in NEEDS.get(page.stem, ()):
        if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
            importlib.import_module(framework)
        else:
            pytest.importorskip(framework)
    monkeypatch.chdir(folder)
    # one figure of each run instead of six, for the sake of time; all are drawn in their own tests
    monkeypatch.setattr(run_folder, "FIGURE_NAMES", ("gradients",))
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        if block[1] == "python":
            # blank lines keep the line numbers of the page in tracebacks
            code = "\n" * text[: block.start(2)].count("\n") + block[2]
            exec(compile(code, str(page), "exec"), names)
        elif not block[1]:
            for line in block[2].replace("\\\n", " ").splitlines():
                if COMMAND.match(line):
                    run_command(*shlex.split(line, comments=True))


@functools.cache  # a command that stands on two pages need not be run twice
def run_command(*words):
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{words}\n{done.output}"


def test_commands_are_found():
    readme = PAGES[0].read_text(encoding="utf-8")
    lines = [line for block in BLOCK.finditer(readme) for line in block[2].splitlines()]
    assert sum(bool(COMMAND.match(line)) for line in lines) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents():
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").split()
    assert {page.stem for page in PAGES} - {"README", "index"} <= set(listed)


def rows(page, heading):
    """First cells of the table under a heading of its first column."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def settings_table():
    """The table of settings, as the declarations have them."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, each in SETTINGS.items():
        default = each.default_in_words or "–"
        if isinstance(each.default, (str, bool)):
            default = f"`{str(each.default).lower()}`"
        choices = [f"`{choice}`" for choice in each.choices]
        if each.further:
            choices.append(each.further)
        listed = f": {', '.join(choices)}" if choices else ""
        if len(choices) > 5:
            listed = ", by name: see `gradiometer run --help`"
        lines.append(f"| `{name}` | {default} | {each.help}{listed} |")
    return lines


def data_table():
    """The table of data sets, as they are declared."""
    lines = ["| data set | samples × features | |", "|---|---|---|"]
    for name, each in DATASETS.items():
        lines.append(f"| `{name}` | {each.rows} × {each.features} | {each.help} |")
    return lines


@pytest.mark.parametrize("table", [settings_table, data_table])
def test_settings_are_listed_as_they_are_declared(table):
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    lines = table()
    assert text[text.index(lines[0]) :].split("\n\n")[0].splitlines() == lines


def test_defaults_of_the_hyperparameters_are_listed():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    for name, kind in OPTIMIZERS.items():
        listed = re.search(rf"^\| `{name}` \| (.*) \|$", text, re.MULTILINE)[1]
        found = {key: float(value) for key, value in re.findall(r"`(\w+)` ([\d.e-]+)", listed)}
        assert found == {key: v for key, v in kind.defaults.items() if key != "alpha"}


def test_every_quantity_and_figure_is_listed():
    quantities = re.findall(r"`(\w+)`", " ".join(rows("quantities.md", "name")))
    assert quantities == [*QUANTITIES]
    assert HISTOGRAM in (ROOT / "docs" / "quantities.md").read_text(encoding="utf-8")
    assert [name.strip("`") for name in rows("figures.md", "name")] == list(FIGURES)


def test_remedies_are_listed_with_their_causes():
    text = (ROOT / "docs" / "remedies.md").read_text(encoding="utf-8")
    for candidate in CANDIDATES.values():
        assert f"| `{candidate.name}` | {', '.join(candidate.causes)} |" in text


def test_the_programs_shown_are_those_that_are_made():
    page = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
    data = load("iris2")
    net = dp.Net(4, 10, 2, "tanh", seed=0)
    shown = (ROOT / "docs" / "program.txt").read_text(encoding="utf-8")
    assert dp.capture(net.loss, data.x, data.y).source == shown
    source = dp.capture(dp.SGD_Momentum(net, data.x, data.y, batch_size=100)).source
    assert source[source.index("def step") :] in page
