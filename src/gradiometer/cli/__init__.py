"""The command line: a thin skin over `gradiometer.verbs`, a file for each verb."""

from __future__ import annotations

import os
import sys

from gradiometer.cli.ending import end_if_asked_twice, loaded  # first: see there

# isort: split
from gradiometer.cli.app import SHOW_TRACEBACK, app, one_line, unexpected
from gradiometer.cli.claims import prove
from gradiometer.cli.experiments import run
from gradiometer.cli.exports import export
from gradiometer.cli.figures import activations, plot
from gradiometer.cli.predictions import predict
from gradiometer.cli.settings import CommandWithSettings
from gradiometer.cli.studies import study

for _verb in (run, predict, study, prove, plot, activations, export):  # in the order of --help
    app.command(cls=CommandWithSettings)(_verb)
loaded()


def main() -> None:
    """Entry point of the `gradiometer` command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no "█" shows "?"
    try:
        end_if_asked_twice()
        app()
    except KeyboardInterrupt:  # between two verbs' own lines
        sys.exit(130)
    except Exception as error:  # outside of what a verb does: while flags are read, say
        if os.environ.get(SHOW_TRACEBACK):
            raise
        print(f"gradiometer: {one_line(unexpected(error))}", file=sys.stderr)
        sys.exit(1)
