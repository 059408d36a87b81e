"""The command `gradlab`, and what its verbs share: errors in words, output that may go unread."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="See the flow of gradients through a deep network.",
)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Turn an error the user can mend into one line and exit status 2."""
    try:
        with _warnings_in_words():
            yield
    except MemoryError as error:
        fail(f"not enough memory ({error}); choose a smaller width, batch or number of members")
    except BrokenPipeError:
        raise  # typer's: whoever read our output has gone
    except (ValueError, OSError) as error:
        fail(str(error))


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Say in a line what is to be known of a file, each thing once."""
    import warnings

    from gradlab.seal import FileWarning

    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, FileWarning):
            usual(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            typer.echo(f"gradlab: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FileWarning)
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def fail(message: str) -> NoReturn:
    """Say what is wrong in one line, and end with exit status 2."""
    typer.echo(f"gradlab: {message}", err=True)
    raise typer.Exit(2) from None


@contextmanager
def heard_or_not() -> Iterator[None]:
    """Go on with the work where nobody reads what is printed (`gradlab run | head -1`)."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich turns the one into the other
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gradlab {version('gradlab')}")
        raise typer.Exit


@app.callback()
def _gradlab(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None: ...
