"""The command line: a thin layer over `gradiometer.verbs`, a file for each verb."""

from __future__ import annotations

import os
import signal
import sys

from gradiometer.cli.ending import end_if_asked_twice, exit_status, loaded  # first: see there

# isort: split
from gradiometer.cli import activations, diagnose, export, plot, predict, prove, report, run, study
from gradiometer.cli.app import SHOW_TRACEBACK, app, one_line, unexpected
from gradiometer.cli.settings import CommandWithSettings

for _verb in (  # in the order of --help
    run.run,
    predict.predict,
    study.study,
    prove.prove,
    diagnose.diagnose,
    report.report,
    plot.plot,
    activations.activations,
    export.export,
):
    app.command(cls=CommandWithSettings)(_verb)
loaded()


def main() -> None:
    """Entry point of the `gradiometer` command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without "█" shows "?"
    try:
        end_if_asked_twice()
        app()
    except KeyboardInterrupt:  # outside of a verb
        sys.exit(exit_status(signal.SIGINT))
    except Exception as error:  # outside of a verb, such as while flags are read
        if os.environ.get(SHOW_TRACEBACK):
            raise
        print(f"gradiometer: {one_line(unexpected(error))}", file=sys.stderr)
        sys.exit(1)
