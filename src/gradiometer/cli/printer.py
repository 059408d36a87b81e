"""What the printers of all verbs have in common: progress bar, exit status, broken pipes."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from gradiometer.cli.app import heard_or_not
from gradiometer.cli.ending import exit_status
from gradiometer.events import Event, FileWritten, Finished, Interrupted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Printer:
    """Prints the events of a verb, and ends the command with the exit status that follows.

    Used as a context manager around the call of the verb. An error in printing does not end the
    work: it is raised when the verb has returned.

    Attributes
    ----------
    status : int
        That of a signal (see `exit_status`), 1 for other reasons, 0 if all went well.
    """

    def __init__(self) -> None:
        self.status = 0
        self._bar: Progress | None = None
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop_bar()
        if kind is None and self._error is not None:
            raise self._error
        if self.status and (kind is None or issubclass(kind, KeyboardInterrupt)):
            raise typer.Exit(self.status) from None

    def __call__(self, event: Event) -> None:
        """Print an event."""
        if self._error is not None:
            return
        try:
            with heard_or_not():
                self.show(event)
        except Exception as error:
            self._error = error

    def show(self, event: Event) -> None:
        """Print an event that all verbs have; the verb's own printer prints the others."""
        match event:
            case FileWritten(path):
                typer.echo(f"  {path}")
            case Interrupted(number):
                self.stop_bar()
                self.status = exit_status(number)
            case Finished():
                self.stop_bar()

    # --- the progress bar -------------------------------------------------------------------------

    def start_bar(
        self, *columns: Any, total: float | None, console: Console | None = None, **fields: Any
    ) -> None:
        """Show a bar on the standard error stream, until the verb has something else to print."""
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(*columns, console=console or Console(stderr=True))
        self._bar.add_task("", total=total, **fields)
        self._bar.start()

    def move_bar(self, done: float, **fields: Any) -> None:
        """Move the bar, if there is one."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, **fields)

    def stop_bar(self) -> None:
        """End the bar; it stays on the screen."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
