"""`prove`: the textbook's statements tested, and a folder with the report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING

from gradiometer.events import FileWritten, Finished, Guarded, Interrupted, Listener, Result
from gradiometer.files import FAILURES, keep_elsewhere, remove_leftovers, why, write_atomically
from gradiometer.interrupts import Interrupts
from gradiometer.regular import read_regular
from gradiometer.verbs.output import (
    OutputError,
    claimed,
    errors_of,
    save_figure,
    writable_folder,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.claims.proofs import Proofs

RESULT, REPORT = "proofs.json", "report.html"
SEEDS = 50


def prove(
    claims: Sequence[str] | None = None,
    *,
    seeds: int = SEEDS,
    first_seed: int = 0,
    papers: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    on_event: Listener | None = None,
) -> Proofs:
    """Test the textbook's statements, and say which hold.

    Parameters
    ----------
    claims : sequence of str, optional
        Names of claims; by default all, or with `papers` none.
    seeds : int
        Nets of each experiment that is trained, from 5 to 10,000. Experiments of a single step have
        four times as many, and at least 200.
    first_seed : int
        The first of their seeds.
    papers : bool
        Reproduce numbers from papers.
    out : path, optional
        Folder for report.html, proofs.json and a figure of each claim. Without it none is written.
    overwrite : bool
        Replace files of these names in `out` that are not proofs.
    on_event : callable, optional
        Called with everything that happens: `Begun`, `TooFewSeeds`, `ClaimBegun`, `ClaimJudged`,
        `Result`, `FileWritten`, `Interrupted`, `Finished`; see `gradiometer.events`.

    Returns
    -------
    Proofs

    Raises
    ------
    ValueError
        If there is no claim of such a name, tests cannot be made with so many seeds, or
        `first_seed` is negative.
    OutputError
        If `out` cannot be written to, or holds something else: before any work. If the result
        cannot be written, after the event `Result`; the error names the file that the numbers are
        kept in.
    SystemExit
        If `on_event` raised it. The proofs until then are in `out`, and in its `proofs`.
    KeyboardInterrupt
        If it was interrupted before the first claim was tested.

    Examples
    --------
    >>> import gradiometer
    >>> gradiometer.prove(["sigmoid-slope", "relu-slope"]).sentence()
    'Of 2 claims, 1 holds and 1 holds as reworded.'
    """
    from gradiometer.claims.catalogue import chosen
    from gradiometer.claims.laboratory import Laboratory

    chosen(claims)  # wrong names are refused before a folder is made
    Laboratory(seeds, first_seed)
    tell = Guarded(on_event)
    with contextlib.nullcontext() if out is None else folder_for(out, overwrite) as folder:
        proofs = _test(claims, seeds, first_seed, papers, tell, folder)
        with Interrupts() as interrupts:
            interrupts.finish()
            _save_and_tell(proofs, folder, tell)
    if proofs.interrupted or interrupts.signal:
        number = Interrupts.latest or SIGINT
        tell(Interrupted(number, "proving", len(proofs.proofs) + len(proofs.reproductions)))
    else:
        tell(Finished("prove"))
    return proofs


def _test(
    claims: Sequence[str] | None,
    seeds: int,
    first_seed: int,
    papers: bool,
    tell: Guarded,
    folder: Path | None,
) -> Proofs:
    from gradiometer.claims import prove as carry_out

    Interrupts.latest = None
    try:
        return carry_out(claims, seeds=seeds, first_seed=first_seed, papers=papers, on_event=tell)
    except KeyboardInterrupt:
        tell(Interrupted(Interrupts.latest or SIGINT, "proving"))
        raise
    except SystemExit as error:  # of the listener
        if folder is not None and hasattr(error, "proofs"):
            for _ in save(error.proofs, folder):
                pass
        raise


def _save_and_tell(proofs: Proofs, folder: Path | None, tell: Guarded) -> None:
    """Write everything; report the result as soon as the numbers are saved, or cannot be."""
    files = iter(()) if folder is None else save(proofs, folder)
    try:
        numbers = next(files, None)
    finally:
        tell(Result(proofs))
    if numbers is not None:
        tell(FileWritten(numbers))
    for file in files:
        tell(FileWritten(file))


@contextlib.contextmanager
def folder_for(out: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Make the folder, keep others out of it, and check that nothing would be lost.

    Earlier proofs may be replaced: the same command gives them again.

    Raises
    ------
    OutputError
        If it cannot be written to, another gradiometer is running there, or a file of a name to be
        written does not belong to proofs.
    """
    from gradiometer.claims import CLAIMS

    folder = writable_folder(out)
    with claimed(folder):
        if not overwrite:
            _refuse_to_replace(folder)
        remove_leftovers(folder, [RESULT, REPORT, *(f"{name}.png" for name in CLAIMS)])
        yield folder


def _refuse_to_replace(folder: Path) -> None:
    """Raise OutputError if the folder holds files of these names that are not proofs."""
    from gradiometer.claims import Proofs, ProofsError

    present = [name for name in (RESULT, REPORT) if (folder / name).exists()]
    if not present:
        return
    try:
        Proofs.from_json(read_regular(folder / RESULT).decode())
    except (OSError, UnicodeDecodeError, ProofsError):
        raise OutputError(
            f"{folder}: holds {' and '.join(present)}, of something other than gradiometer prove; "
            "choose another folder, or pass --overwrite to replace them"
        ) from None


def save(proofs: Proofs, folder: Path) -> Iterator[Path]:
    """Write the numbers, the figures and the report, one by one; yields the file of each.

    Raises
    ------
    OutputError
        If a file cannot be written. If that is the one with the numbers, they are kept in another
        folder, which the error names.
    """
    from gradiometer.reports.proofs import page

    path = folder / RESULT
    content = proofs.to_json().encode()
    try:
        write_atomically(path, content)
    except FAILURES as error:
        kept = keep_elsewhere(RESULT, content)
        where = f"the numbers are kept in {kept}" if kept else "nor anywhere else"
        raise OutputError(f"{path}: cannot be written ({why(error)}); {where}") from None
    yield path
    figures: dict[str, Figure] = {}
    for proof in proofs.proofs:
        if proof.figure is None:
            continue
        figures[proof.name] = figure = proof.figure()
        path = folder / f"{proof.name}.png"
        save_figure(figure, path)
        yield path
    path = folder / REPORT
    with errors_of(path):
        write_atomically(path, page(proofs, figures).encode())
    yield path
