"""The command `gradiometer`, and what its verbs share: error messages, broken pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

from gradiometer.optional import MissingLibraryError

SHOW_TRACEBACK = "GRADIOMETER_TRACEBACK"  # environment variable, for debugging
LONGEST = 1500  # characters of a message

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Show where the gradient goes in a deep network.",
)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Turn an error into one line: exit status 2 if the user can fix it, otherwise 1."""
    try:
        with _warnings_in_words():
            yield
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        fail(f"not enough memory{why}; choose a smaller width, batch or number of members", 1)
    except BrokenPipeError:
        raise  # for typer: the reader of our output has closed the pipe
    except (ValueError, OSError, MissingLibraryError) as error:
        if os.environ.get(SHOW_TRACEBACK):
            raise
        fail(_words_of(error))
    except Exception as error:
        if os.environ.get(SHOW_TRACEBACK) or isinstance(error, (typer.Exit, typer.Abort)):
            raise
        fail(unexpected(error), 1)


def _words_of(error: Exception) -> str:
    """The message of an error, without the operating system's error number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Print each warning about a file once, in one line."""
    import warnings

    from gradiometer.seal import FileWarning

    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, FileWarning):
            usual(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            typer.echo(f"gradiometer: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FileWarning)
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def unexpected(error: BaseException) -> str:
    """The message for an unexpected error, which says how to get the traceback."""
    return (
        f"unexpected {type(error).__name__}: {error} (this is a bug in gradiometer; put "
        f"{SHOW_TRACEBACK}=1 in front of the command to see where)"
    )


def fail(message: str, status: int = 2) -> NoReturn:
    """Print what is wrong in one line, and end with an exit status."""
    typer.echo(f"gradiometer: {one_line(message)}", err=True)
    raise typer.Exit(status) from None


def one_line(message: str) -> str:
    """A message as one line of bounded length, without characters that move the cursor."""
    words = " ".join(message.split())
    plain = "".join(c if c.isprintable() else "\ufffd" for c in words)
    half = LONGEST // 2
    return plain if len(plain) <= LONGEST else f"{plain[:half]} … {plain[-half:]}"


@contextmanager
def heard_or_not() -> Iterator[None]:
    """Go on with the work if the reader closes the pipe (`gradiometer run | head -1`)."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich turns the one into the other
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gradiometer {version('gradiometer')}")
        raise typer.Exit


@app.callback()
def _gradiometer(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None: ...
