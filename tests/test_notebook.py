"""The lesson: runs from top to bottom, its two forms say the same, its exercises can be solved."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import jupytext
import matplotlib
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(NOTEBOOKS.glob("*.py"))


def test_there_are_notebooks():
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_are_a_pair(script):
    written = jupytext.read(script)
    paired = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(paired)
    assert [(cell.cell_type, cell.source) for cell in paired.cells] == [
        (cell.cell_type, cell.source) for cell in written.cells
    ], "run `make notebooks`"
    assert not any(cell.get("outputs") for cell in paired.cells), "commit it without outputs"


# the kernel's sockets, and its own imports, are not ours to mend
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(script):
    notebook = jupytext.read(script)
    # warnings are errors in the lesson too, but not those of the kernel it runs in
    strict = (
        "import warnings\n"
        "for kind in (RuntimeWarning, UserWarning, FutureWarning):\n"
        "    warnings.simplefilter('error', kind)"
    )
    notebook.cells.insert(0, nbformat.v4.new_code_cell(strict))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == 7
    printed = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert "accuracy after 100%" in printed
    assert "does not reach the first layer" in printed
    assert printed.count("in the cell above, run it, and run this cell again") == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_link_within_has_its_heading(script):
    texts = [c.source for c in jupytext.read(script).cells if c.cell_type == "markdown"]
    headings = re.findall(r"^#+ (.*)$", "\n".join(texts), re.MULTILINE)
    # the anchor that Jupyter makes of a heading
    anchors = {heading.replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]*)\)", "\n".join(texts))
    assert len(links) >= 8
    assert set(links) <= anchors


# --- the exercises --------------------------------------------------------------------------------

LESSON = NOTEBOOKS / "activation_functions.py"
RECORDING, NET = 0, 1  # the exercises, in order


def solve(exercise, solution):
    """Run the lesson up to an exercise's check, with `solution` in the cell to be filled in."""
    cells = [c for c in jupytext.read(LESSON).cells if c.cell_type == "code"]
    places = [i for i, c in enumerate(cells) if c.metadata.get("tags") == ["exercise"]]
    place = places[exercise]
    assert cells[place + 1].metadata["tags"] == ["check"]
    assert cells[place + 2].metadata["tags"] == ["solution"]
    cells[place].source = solution(cells[place + 2].source)
    names, printed = {"__name__": "__main__"}, io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")  # figures that nobody is shown
        for cell in cells[: place + 2]:
            exec(cell.source, names)
    return printed.getvalue()


def renamed(source):
    """The lesson's own solution, under the name that the exercise asks for."""
    source = source.split("\n\n\n")[0]  # the class, without what is done with it
    return source.replace("RecordingSGD", "MySGD").replace("class Net(", "class MyNet(")


@pytest.fixture(autouse=True)
def _no_windows():
    matplotlib.use("agg")


@pytest.mark.parametrize("exercise", [RECORDING, NET])
def test_the_check_accepts_the_solution(exercise):
    assert "Right: " in solve(exercise, renamed).splitlines()[-1]


@pytest.mark.parametrize(
    ("exercise", "old", "new", "complaint"),
    [
        (RECORDING, "np.abs(grad[name])", "grad[name]", "layer h0, step 1"),
        (RECORDING, "(len(weights), steps)", "(len(weights), steps + 1)", r"\(2, 21\)"),
        (RECORDING, "self._update(param, grad, g, i)", "pass", "layer h0, step 2"),
        (NET, "range(n_layers)", "range(1)", "has layers of sizes"),
        (NET, "self.act_func = act_func", 'self.act_func = "tanh"', "forward gives other numbers"),
        (NET, ".log()).sum()", ".log()).mean()", "the loss is"),
    ],
)
def test_the_check_says_what_is_wrong(exercise, old, new, complaint):
    def wrong(source):
        assert old in source
        return renamed(source).replace(old, new)

    with pytest.raises(AssertionError, match=complaint):
        solve(exercise, wrong)
