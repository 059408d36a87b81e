"""`run`: one experiment, its trace, figures and description in a folder."""

from __future__ import annotations

import os
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from gradiometer.events import (
    Begun,
    FileWritten,
    Finished,
    Guarded,
    Interrupted,
    Listener,
    Result,
    StoppedOn,
    TimeLimitReached,
)
from gradiometer.interrupts import Interrupts
from gradiometer.verbs.description import describe, lists_settings
from gradiometer.verbs.predict import check_covered, compare_with_theory
from gradiometer.verbs.run_folder import RunFolder
from gradiometer.verbs.telling import interruptible

if TYPE_CHECKING:
    from collections.abc import Collection

    from gradiometer.diagnosis import Verdict
    from gradiometer.experiment import Experiment, Training
    from gradiometer.recording.live import OnVerdict
    from gradiometer.trace import Trace


@lists_settings
def run(
    experiment: Experiment | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    theory: bool = False,
    report: bool = False,
    timeout: float | None = None,
    stop_on: Collection[str] = (),
    on_verdict: OnVerdict | None = None,
    on_event: Listener | None = None,
    **settings: Any,
) -> Trace:
    """Train one net and record the flow of its gradient.

    An interrupt (Ctrl-C, SIGTERM) ends the training; what was recorded until then is returned,
    saved and drawn.

    Parameters
    ----------
    experiment : Experiment or path of a TOML file, optional
        What to run; by default the net of ten sigmoid layers that does not learn.
    out : path, optional
        Folder for trace.nc, experiment.toml and the figures; {title} in it is replaced by the
        experiment's title. Without it nothing is written.
    overwrite : bool
        Replace another experiment's trace in `out`.
    theory : bool
        Show the prediction of the first step in heatmap and profile, and compare with it even if
        the prediction takes longer than the run.
    report : bool
        Write report.html into `out`, too; see `report`.
    timeout : float, optional
        Seconds after which the training ends; what was recorded until then is returned and saved.
    stop_on : collection of str, optional
        Kinds of verdicts that end the training, such as ["non-finite", "vanishing"]; what was
        recorded until then is returned and saved, and the trace's attribute `stopped_on` is the
        kind. See `gradiometer.record`.
    on_verdict : callable, optional
        Called with the first verdict of each kind while the net is trained.
    on_event : callable, optional
        Called with everything that happens: `Begun`, `StepRecorded`, `Progressed`, `Result`,
        `Compared` or `NotCompared`, `Interrupted`, `TimeLimitReached` or `StoppedOn`,
        `KeptElsewhere`, `FileWritten`, `Finished`; see `gradiometer.events`.
    **settings
        Of the experiment, such as layers=3 or activation="tanh"; they take precedence:

    Returns
    -------
    Trace

    Raises
    ------
    ExperimentError
        If the description is not valid.
    TooLargeError
        If it needs more memory than there is: before anything is made.
    TheoryError, ValueError
        If `theory` is true, and theory does not cover the experiment; if `report` is, and `out` is
        missing: before training.
    OutputError
        If `out` cannot be written to, or holds something else: before training. If the result
        cannot be written: its `trace` has it, and so has a file elsewhere, which the error names.
    SystemExit
        If `on_event` raised it. What was recorded until then is in `out`, and in its `trace`.
    KeyboardInterrupt
        If it was interrupted before the first step was recorded; or after the training, while the
        run was compared with theory or drawn. The trace and its description are in `out` then.

    Examples
    --------
    >>> import gradiometer
    >>> trace = gradiometer.run(layers=3, activation="tanh", steps=5)
    >>> trace["grad_mean_abs"].sizes["layer"]
    4
    """
    from gradiometer.experiment import Training

    described = describe(experiment, **settings)
    if stop_on and on_verdict is None and on_event is not None:
        on_verdict = _told_at_the_end
    training = Training(described, timeout, stop_on, on_verdict)
    if theory:
        check_covered(described)
    if report and out is None:
        raise ValueError("report: out must be given, the folder to write it into")
    folder = None if out is None else RunFolder(out, described, overwrite, report)
    tell = Guarded(on_event)
    tell(Begun("run", described, described.steps))
    trace, interrupts = _train(training, folder, tell)
    ended = _end_of(trace, described, interrupts)
    prediction = None
    with interruptible(tell, "comparing") as comparing:
        heeded = bool(tell) or (theory and folder is not None)
        if heeded and not isinstance(ended, Interrupted):
            prediction = compare_with_theory(described, trace, theory, tell)
    if ended is not None:
        tell(ended)
    with interruptible(tell, "drawing") as drawing:
        if folder is not None:
            folder.tell_files(tell)
        if folder is not None and not interrupts.again:
            for file in folder.draw(trace, prediction, show=theory):
                tell(FileWritten(file))
                drawing.check()
    if comparing.raised or drawing.raised:
        raise KeyboardInterrupt
    if ended is None:
        tell(Finished("run"))
    return trace


def _told_at_the_end(_: Verdict) -> None:
    """By the event `StoppedOn`, and by the trace."""


def _train(training: Training, folder: RunFolder | None, tell: Guarded) -> tuple[Trace, Interrupts]:
    """Train and save; an interrupt ends the training; the event `Result` comes in any case."""
    with Interrupts() as interrupts:
        try:
            trace = training.run(on_event=tell if tell else None)
        except KeyboardInterrupt:
            steps = training.experiment.steps
            tell(Interrupted(interrupts.signal or SIGINT, "training", 0, steps))
            raise
        except SystemExit as error:  # of the listener
            if folder is not None and hasattr(error, "trace"):
                folder.save(error.trace)
            raise
        interrupts.finish()
        try:
            if folder is not None:
                folder.save(trace)
        finally:
            tell(Result(trace))
    return trace, interrupts


def _end_of(
    trace: Trace, experiment: Experiment, interrupts: Interrupts
) -> Interrupted | TimeLimitReached | StoppedOn | None:
    """The event for what ended the training early, or came too late to end it."""
    done, late = int(trace.attrs["steps_done"]), "time_limit" in trace.attrs
    on_verdict = "stopped_on" in trace.attrs
    stopped = trace.attrs["interrupted"] or "asked_to_stop" in trace.attrs
    number = interrupts.signal or (SIGINT if stopped and not (late or on_verdict) else None)
    if number is not None:
        return Interrupted(number, "training", done, experiment.steps)
    if late:
        return TimeLimitReached(float(trace.attrs["time_limit"]), done, experiment.steps)
    if on_verdict:
        return StoppedOn(str(trace.attrs["stopped_on"]), done, experiment.steps)
    return None
