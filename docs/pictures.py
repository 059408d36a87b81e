"""Make the pictures of these pages, the table and the program: `python docs/pictures.py`."""

import tempfile
from pathlib import Path

from typer.testing import CliRunner

import dp
import gradiometer
from gradiometer.cli import app
from gradiometer.data import load
from gradiometer.decomposition import NEEDED
from gradiometer.trace import Trace

DOCS = Path(__file__).parent
FIGURES = {"first": "gradients", "heatmap": "heatmap", "profile": "profile", "decision": "decision"}


def main() -> None:
    """Run what the README says, and keep its table and figures; and draw the lesson's study."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["run", "--layers", "10", "--activation", "sigmoid", "--members", "20"]
        done = CliRunner().invoke(app, [*command, "--out", folder], catch_exceptions=False)
        table = done.stdout[: done.stdout.index(folder)].rstrip()
        (DOCS / "first.txt").write_text(table + "\n", encoding="utf-8")
        trace = Trace.load(Path(folder) / "trace.nc")
        for file, figure in FIGURES.items():
            getattr(trace.plot, figure)().savefig(DOCS / f"{file}.png", dpi=110)
        parts = gradiometer.run(activation="sigmoid", layers=8, steps=20, quantities=NEEDED)
        parts.plot.waterfall(step=1).savefig(DOCS / "waterfall.png", dpi=90)
        study = gradiometer.study("lesson", out=Path(folder) / "study")
        study.plot.outcome().savefig(DOCS / "study.png", dpi=90)
    (DOCS / "program.txt").write_text(program(), encoding="utf-8")


def program() -> str:
    """The page of NumPy that docs/programs.md shows."""
    data = load("iris2")
    return dp.capture(dp.Net(4, 10, 2, "tanh", seed=0).loss, data.x, data.y).source


if __name__ == "__main__":
    main()
