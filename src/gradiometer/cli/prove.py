"""`gradiometer prove`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradiometer.cli.app import errors_in_words, heard_or_not
from gradiometer.cli.paths import PATH
from gradiometer.cli.printer import Printer
from gradiometer.events import ClaimBegun, Event, Interrupted, Result, TooFewSeeds

if TYPE_CHECKING:
    from rich.table import Table

    from gradiometer.claims import Proofs

WIDTH = 110
STYLES = {
    "holds": "green",
    "holds as reworded": "cyan",
    "fails": "red",
    "undecided": "yellow",
}


def prove(
    claims: Annotated[
        list[str] | None, typer.Argument(help="Names of claims; all by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of nets per experiment; 10 is quick.")] = 50,
    first_seed: Annotated[
        int,
        typer.Option(help="The first seed; vary it to see whether verdicts depend on the seeds."),
    ] = 0,
    papers: Annotated[
        bool,
        typer.Option(
            "--papers", help="Reproduce numbers from papers; tests no claims unless you name them."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(**PATH, help="Folder for the report, figures and numbers.")
    ] = Path("runs/proofs"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in that folder that are not proofs.")
    ] = False,
    list_claims: Annotated[bool, typer.Option("--list", help="List the claims and exit.")] = False,
) -> None:
    """Test the textbook's statements, and say which of them hold."""
    with errors_in_words(), ProvePrinter() as printer:
        from gradiometer.verbs import prove as verb

        if list_claims:
            with heard_or_not():
                _list()
            return
        verb.prove(
            claims or None,
            seeds=seeds,
            first_seed=first_seed,
            papers=papers,
            out=out,
            overwrite=overwrite,
            on_event=printer,
        )


class ProvePrinter(Printer):
    """Prints what happens while claims are tested."""

    def show(self, event: Event) -> None:
        """Print an event."""
        match event:
            case TooFewSeeds(name, why):
                typer.echo(f"warning: {name}: {why}", err=True)
            case ClaimBegun(name, done, total):
                if done == 0:
                    self._start(total)
                self.move_bar(done, description=name)
            case Result(proofs):
                self.move_bar(len(proofs.proofs) + len(proofs.reproductions), description="")
                self.stop_bar()
                _report(proofs)
                if not all(row.passed for row in proofs.reproductions):
                    self.status = 1
            case Interrupted(done=0):
                super().show(event)
                words = "gradiometer: interrupted before the first claim; nothing was proved"
                typer.echo(words, err=True)
            case _:
                super().show(event)

    def _start(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

        self.start_bar(
            TextColumn("proving"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            total=total,
        )


def _list() -> None:
    from gradiometer.claims import CLAIMS

    typer.echo("Claims; `gradiometer prove NAME …` tests some, `gradiometer prove` all:")
    for name, claim in CLAIMS.items():
        typer.echo(f"  {name:<23} {claim.said}")


def _report(proofs: Proofs) -> None:
    screen = _console()
    if proofs.proofs:
        screen.print(_claims(proofs), crop=False)
    if proofs.reproductions:
        for table in _papers(proofs):
            screen.print(table, crop=False)
    screen.print(proofs.sentence(), highlight=False, style="bold", soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    # a pipe has no width, and must not narrow the table
    found = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    return found if found.width >= 76 else Console(width=76)


def _table(title: str, leading: int = 0) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, leading=leading
    )


def _claims(proofs: Proofs) -> Table:
    from gradiometer.reports.page import effect_in_words, p_in_words

    table = _table(
        f"Claims, tested with {proofs.seeds} seeds from seed {proofs.first_seed} on (claims about "
        f"a single step with at least 200 nets); p corrected for {proofs.tests} tests (Holm)",
        leading=1,
    )
    table.add_column("claim", overflow="fold")
    table.add_column("effect [95 % interval]", overflow="fold")
    table.add_column("corrected p", justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in proofs.table():
        effect = effect_in_words(
            *(row[name] for name in ("effect", "low", "high", "unit", "no_interval"))
        )
        table.add_row(
            f"[bold]{row['claim']}[/bold]\n{_escaped(row['statement'])}",
            f"{_escaped(effect)}\n[dim]{_escaped(row['what'])}[/dim]",
            p_in_words(row["p"]),
            f"[{STYLES[row['verdict']]}]{row['verdict']}[/]",
        )
    return table


def _papers(proofs: Proofs) -> Iterator[Table]:
    """A table for each kind of number, so that kinds are never mixed."""
    for title, heading, rows in proofs.kinds():
        table = _table(f"Numbers from papers, reproduced. {title}")
        table.add_column("source, place", overflow="fold")
        table.add_column("number", overflow="fold")
        for words in (heading, "ours", "tolerance"):
            table.add_column(words, justify="right", no_wrap=True)
        table.add_column("by")
        table.add_column("checked", overflow="fold")
        table.add_column("pass")
        for row in rows:
            table.add_row(
                f"{row.source}, {row.place}" if row.place else row.source,
                _escaped(row.what),
                row.shown,
                f"{row.ours:.{row.digits}g}",
                row.tolerance,
                row.how,
                row.checked_in_words,
                "[green]yes[/]" if row.passed else "[bold red]NO[/]",
            )
        yield table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
