"""The lesson: runs from top to bottom, and its two forms say the same."""

from pathlib import Path

import jupytext
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
