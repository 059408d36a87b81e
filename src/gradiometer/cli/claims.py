"""`gradiometer prove`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradiometer.cli.app import errors_in_words, fail, heard_or_not
from gradiometer.cli.paths import PATH

if TYPE_CHECKING:
    from rich.table import Table

    from gradiometer.claims.claim import Claim
    from gradiometer.claims.proofs import Progress, Proofs

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
    seeds: Annotated[int, typer.Option(help="Nets of each experiment; 10 is quick.")] = 50,
    first_seed: Annotated[
        int,
        typer.Option(help="The first seed; vary it to see whether verdicts depend on the seeds."),
    ] = 0,
    papers: Annotated[
        bool,
        typer.Option("--papers", help="Reproduce numbers from papers; no claims unless named."),
    ] = False,
    out: Annotated[
        Path, typer.Option(**PATH, help="Folder for the report, figures and numbers.")
    ] = Path("runs/proofs"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files there that are not proofs.")
    ] = False,
    list_claims: Annotated[bool, typer.Option("--list", help="List the claims and exit.")] = False,
) -> None:
    """Test the textbook's statements, and say which of them hold."""
    with errors_in_words():
        if list_claims:
            with heard_or_not():
                _list()
            return
        from gradiometer.claims.catalogue import chosen
        from gradiometer.claims.laboratory import Laboratory
        from gradiometer.verbs import claims as verb

        chosen(claims or None)  # refused before a folder is made
        Laboratory(seeds, first_seed)
        with verb.folder_for(out, overwrite) as folder:
            if claims or not papers:
                _say_what_cannot_be_shown(chosen(claims or None), seeds)
            _carry_out(folder, claims, seeds=seeds, first_seed=first_seed, papers=papers)


def _carry_out(folder: Path, claims: list[str] | None, **options: Any) -> None:
    """Prove, save and tell; what was found is told, also where it cannot be saved."""
    from gradiometer.claims import prove as carry_out
    from gradiometer.interrupts import Interrupts
    from gradiometer.verbs import claims as verb

    Interrupts.latest = None
    try:
        with _progress_bar() as progress:
            proofs = carry_out(claims or None, progress=progress, **options)
    except KeyboardInterrupt:
        typer.echo("gradiometer: interrupted before the first claim; nothing was proved", err=True)
        raise typer.Exit(128 + (Interrupts.latest or signal.SIGINT)) from None
    with Interrupts() as interrupts:
        interrupts.finish()
        files, failure = [], ""
        try:
            for file in verb.save(proofs, folder):  # first: what is printed may go unread
                files.append(file)
        except OSError as error:
            failure = str(error)
        with heard_or_not():
            _report(proofs)
            for file in files:
                typer.echo(f"  {file}")
    if failure:
        fail(failure)
    if proofs.interrupted or interrupts.signal:
        raise typer.Exit(128 + (Interrupts.latest or signal.SIGINT))
    if not all(row.passed for row in proofs.reproductions):
        raise typer.Exit(1)


def _say_what_cannot_be_shown(claims: list[Claim], seeds: int) -> None:
    from gradiometer.claims.power import too_few

    for name, why in too_few(claims, seeds).items():
        typer.echo(f"warning: {name}: {why}", err=True)


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

    # a pipe has no width of its own, and the table must not be squeezed in it
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
        f"Claims, tested with {proofs.seeds} seeds from seed {proofs.first_seed} on (those of a "
        f"single step with at least 200 nets); p corrected for {proofs.tests} tests (Holm)",
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
    """A table for each kind of number: they are never under one heading."""
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


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        TextColumn("proving"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        yield progress
