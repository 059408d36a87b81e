"""`prove`: the textbook's statements put to the test, and a folder with the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.files import write_atomically
from gradlab.interrupts import Interrupts
from gradlab.regular import read_regular
from gradlab.verbs.output import OutputError, save_figure, writable_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradlab.claims.proofs import Progress, Proofs

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
    progress: Progress | None = None,
) -> Proofs:
    """Put the textbook's statements to the test, and say which hold.

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
        Find figures again that papers state.
    out : path, optional
        Folder for report.html, proofs.json and a figure of each claim. Nothing is written without.
    overwrite : bool
        Replace files of these names in `out` that are no proofs.
    progress : callable, optional
        `progress(done, total, name)`, before each claim.

    Returns
    -------
    Proofs

    Raises
    ------
    ValueError
        If there is no claim of such a name, tests cannot be made with so many seeds, or
        `first_seed` is negative.
    OutputError
        If `out` cannot be written to, or holds something else: before any work.

    Examples
    --------
    >>> from gradlab.verbs import prove
    >>> prove(["sigmoid-slope", "relu-slope"]).sentence()
    'Of 2 claims, 1 holds and 1 holds as reworded.'
    """
    from gradlab.claims import prove as carry_out

    folder = None if out is None else prepare_folder(out, overwrite)
    proofs = carry_out(claims, seeds=seeds, first_seed=first_seed, papers=papers, progress=progress)
    if folder is not None:
        with Interrupts() as interrupts:
            interrupts.finish()
            for _ in save(proofs, folder):
                pass
    return proofs


def prepare_folder(out: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Make the folder, and check that it can be written to and that nothing would be lost.

    Earlier proofs may be replaced: the same command gives them again.

    Raises
    ------
    OutputError
        If it cannot be written to, or has a file of a name to be written that is no proofs'.
    """
    from gradlab.claims import Proofs, ProofsError

    folder = writable_folder(out)
    present = [name for name in (RESULT, REPORT) if (folder / name).exists()]
    if present and not overwrite:
        try:
            Proofs.from_json(read_regular(folder / RESULT).decode())
        except (OSError, UnicodeDecodeError, ProofsError):
            raise OutputError(
                f"{folder}: holds {' and '.join(present)}, of something other than gradlab prove; "
                "choose another folder, or pass --overwrite to replace them"
            ) from None
    return folder


def save(proofs: Proofs, folder: Path) -> Iterator[Path]:
    """Write the numbers, the figures and the report, one by one; gives the file of each.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    from gradlab.report.proofs import page

    path = folder / RESULT
    _write(path, proofs.to_json())
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
    _write(path, page(proofs, figures))
    yield path


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
