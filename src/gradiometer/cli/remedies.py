"""What `--try` prints: how far it is, and which remedies were tried."""

from __future__ import annotations

from typing import Annotated

import typer

from gradiometer.cli.printer import Printer
from gradiometer.events import Event, RemediesBegun, RemediesFound, RemedyTried
from gradiometer.interrupts import check_time_limit

Try = Annotated[
    bool,
    typer.Option("--try", help="Try remedies on the same seeds, and say which one mends the net."),
]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Try no more remedies after this time; what was tried is kept."
    ),
]


def check_budget(attempt: bool, budget: float | None) -> None:
    """Raise ValueError for a budget that is none, or that nothing would be tried with.

    Before anything is done or printed.
    """
    check_time_limit(budget, "budget")
    if budget is not None and not attempt:
        raise ValueError("--budget is the time for --try, which was not given")


class RemediesPrinter(Printer):
    """Prints what happens while remedies are tried.

    Parameters
    ----------
    shows_results : bool
        Whether the result is printed as a table.
    """

    def __init__(self, shows_results: bool = True) -> None:
        super().__init__()
        self._shows_results = shows_results

    def show(self, event: Event) -> None:
        """Print an event."""
        match event:
            case RemediesBegun(total):
                self._start_trying(total)
            case RemedyTried(words, done):
                self.move_bar(done, words=words)
            case RemediesFound(remedies):
                self.stop_bar()
                if self._shows_results:
                    from gradiometer.cli.tables import print_remedies

                    print_remedies(remedies)
            case _:
                super().show(event)

    def _start_trying(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        self.start_bar(
            TextColumn("trying remedies"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            total=total,
            words="none yet",
        )
