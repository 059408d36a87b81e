"""Experiment: one run, described; running it gives a Trace."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

import dp
from dp.validation import unknown
from gradiometer.data import Data, load
from gradiometer.decision import add_decision
from gradiometer.declaration import Setting, Taker, plain
from gradiometer.events import Guarded, Listener, Progressed
from gradiometer.files import read_toml, write_atomically
from gradiometer.interrupts import Interrupts, OutOfTime, check_time_limit
from gradiometer.memory import check_memory
from gradiometer.quantities import PER_STEP
from gradiometer.recording import Recorder, TrainingStopped, record
from gradiometer.recording.live import OnVerdict, checked_kinds
from gradiometer.settings import DEFAULTS, SETTINGS, Settings, check_together
from gradiometer.versions import versions

if TYPE_CHECKING:
    from dp.program.arrays import StepArrays
    from gradiometer.trace import Trace


# Raised whenever a description gives other numbers than before, so that results kept on disk are
# not taken for those of today's code; a test compares with numbers of old.
NUMBERS = 1


class FrozenDict(dict[str, float]):
    """A dict that cannot be changed, so that an experiment's hash holds."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an experiment is frozen; make another one, with Experiment.of(…)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)


class ExperimentError(ValueError):
    """A description that cannot be run, with what would be accepted."""


def _field(setting: Setting) -> tuple[Any, Any]:
    """The annotation and the field that pydantic makes a setting of."""
    annotation = setting.type
    if setting.check is not None:
        annotation = Annotated[annotation, BeforeValidator(setting.check)]
    elif setting.table is not None and setting.types == (str,):
        annotation = Annotated[annotation, AfterValidator(setting.known)]
    finite = float in setting.types and {*setting.types} <= {float, type(None)}
    return annotation, Field(
        setting.default,
        description=setting.help,
        ge=setting.at_least,
        le=setting.at_most,
        gt=setting.above,
        lt=setting.below,
        allow_inf_nan=False if finite else None,
    )


if TYPE_CHECKING:

    class _Fields(BaseModel, Settings):
        pass

else:
    _Fields = create_model(
        "_Fields",
        __config__=ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=True),
        **{name: _field(setting) for name, setting in SETTINGS.items()},
    )


class Experiment(_Fields):
    """A complete description of one run, checked and frozen.

    Two experiments with the same fields have the same `hash` and the same results. Its fields are
    the settings declared in `gradiometer.settings`; every one of them is a flag of
    `gradiometer run` and a key of its TOML file.
    """

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in given:
                if name not in SETTINGS:
                    raise ValueError(unknown("setting", name, SETTINGS))
            return plain(given)
        return given

    @field_validator("*", mode="after")
    @classmethod
    def _frozen(cls, value: Any) -> Any:
        return FrozenDict(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        check_together(self)
        return self

    @classmethod
    def of(cls, **settings: Any) -> Experiment:
        """Make an Experiment, with readable errors.

        Raises
        ------
        ExperimentError
            Naming each wrong setting, its value and what would be accepted.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ExperimentError(_in_words(error)) from None

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of what is described, and of `NUMBERS`.

        Settings that have their default have no part in it: a setting that is new in gradiometer
        leaves the names of earlier results as they were.
        """
        described = {"numbers": NUMBERS, "settings": self.chosen()}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]

    def given(self) -> dict[str, Any]:
        """The settings that it was made with; those left out have their defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def chosen(self) -> dict[str, Any]:
        """The settings that differ from their defaults, as JSON has them."""
        described = self.model_dump(mode="json")
        return {name: value for name, value in described.items() if value != DEFAULTS[name]}

    @property
    def title(self) -> str:
        """A short name, fit for a folder: sigmoid-10x10-seed0-1a2b3c4d."""
        seeds = f"seed{self.seed}" + (
            f"-{self.seed + self.members - 1}" if self.members > 1 else ""
        )
        return f"{self.activation}-{self.layers}x{self.width}-{seeds}-{self.hash[:8]}"

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the description as TOML, atomically."""
        import tomli_w

        fields = {k: v for k, v in self.model_dump(mode="json").items() if v is not None}
        write_atomically(Path(path), tomli_w.dumps(fields).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str], **changes: Any) -> Experiment:
        """Read a TOML file; `changes` take precedence over it.

        Raises
        ------
        ExperimentError
            If the file is missing, is not TOML, or describes no valid experiment.
        """
        file = Path(path)
        fields = read_toml(file, ExperimentError, "lines such as layers = 10")
        try:
            return cls(**{**fields, **changes})
        except ValidationError as error:
            raise ExperimentError(_in_words(error, str(file), set(changes))) from None

    # --- running ----------------------------------------------------------------------------------

    @property
    def seeds(self) -> list[int]:
        """One seed per member."""
        return list(range(self.seed, self.seed + self.members))

    def load_data(self) -> Data:
        """The data set, scaled as described."""
        return load(self.data, self.scaling, seed=0)

    def net(self, data: Data) -> dp.Net:
        """The net at its initial weights; an ensemble if there are several members."""
        return dp.Net(
            data.n_features,
            self.width,
            self.layers,
            dp.activations.get(self.activation, self.clip),
            n_outputs=data.n_outputs,
            seed=self.seeds if self.members > 1 else self.seed,
            **self._passed_to("net"),
        )

    def optimizer_for(self, net: dp.Net, data: Data) -> dp.Optimizer:
        """What trains a net on the data, with this experiment's rate, batches and seeds."""
        return dp.optimizers.OPTIMIZERS[self.optimizer](
            net,
            data.x,
            data.y,
            {"alpha": self.learning_rate, **self.hyperparameters},
            seed=self.seeds if self.members > 1 else self.seed,
            compile=True,
            **self._passed_to("optimizer"),
        )

    def recorded(self, data: Data) -> dict[str, Any]:
        """What is recorded, as arguments of `gradiometer.record`."""
        return {
            "reference": (data.x, data.y),
            "quantities": self.quantities and (*self.quantities, *PER_STEP),
            **self._passed_to("recorder"),
        }

    def _passed_to(self, taker: Taker) -> dict[str, Any]:
        """The settings that are arguments of the net, the optimiser or the recorder, by name."""
        return {name: getattr(self, name) for name, s in SETTINGS.items() if s.passed_to == taker}

    def run(
        self,
        *,
        on_event: Listener | None = None,
        timeout: float | None = None,
        stop_on: Collection[str] = (),
        on_verdict: OnVerdict | None = None,
    ) -> Trace:
        """Train the net and record the flow of its gradient.

        Divergence is not an error: non-finite values are recorded. An interrupt (Ctrl-C) ends the
        training; what was recorded until then is in the trace, whose `interrupted` is then 1.

        Parameters
        ----------
        on_event : callable, optional
            Called with `StepRecorded` for every step that is recorded, and with `Progressed` if
            `every` is above 1. If it raises an error, it is not called again, and the training goes
            on; KeyboardInterrupt ends the training as Ctrl-C does.
        timeout : float, optional
            Seconds after which the training ends, as by an interrupt; checked after each step. The
            trace's attribute `time_limit` then holds them.
        stop_on : collection of str, optional
            Kinds of verdicts that end the training, as by an interrupt; see `gradiometer.record`.
            The trace's attribute `stopped_on` is then the kind.
        on_verdict : callable, optional
            Called with the first verdict of each kind; see `gradiometer.record`.

        Returns
        -------
        Trace

        Raises
        ------
        TooLargeError
            If it needs more memory than there is; raised before anything is allocated.
        SystemExit
            If `on_event` raised it; what was recorded until then is in its attribute `trace`.
        """
        return Training(self, timeout, stop_on, on_verdict).run(on_event=on_event)


class Training:
    """One training of an experiment; it is checked before anything is made.

    Parameters
    ----------
    experiment : Experiment
    timeout, stop_on, on_verdict
        See `Experiment.run`.

    Raises
    ------
    ValueError
        If the time limit is not a number of seconds above 0, or there is no such kind of verdict.
    TooLargeError
        If the training needs more memory than there is.
    """

    def __init__(
        self,
        experiment: Experiment,
        timeout: float | None = None,
        stop_on: Collection[str] = (),
        on_verdict: OnVerdict | None = None,
    ) -> None:
        check_time_limit(timeout)
        self._live: dict[str, Any] = {
            "stop_on": checked_kinds(stop_on) if stop_on else (),
            "on_verdict": on_verdict,
        }
        check_memory(experiment)
        self.experiment, self._timeout = experiment, timeout

    def run(self, *, on_event: Listener | None = None) -> Trace:
        """Train and record; see `Experiment.run`."""
        experiment = self.experiment
        data = experiment.load_data()
        net = experiment.net(data)
        optimizer = experiment.optimizer_for(net, data)
        started = time.perf_counter()
        ended_by = None
        with (
            Interrupts() as interrupts,
            np.errstate(all="ignore"),
            record(net, optimizer, **experiment.recorded(data), **self._live) as recorder,
        ):
            ending = _Ending(experiment.steps, interrupts, self._timeout)
            if on_event is not None:
                self._tell(Guarded.of(on_event), recorder, ending)
            optimizer.callbacks.append(ending)
            try:
                optimizer.train(experiment.steps, print_each=None)
                interrupts.finish()
                recorder.session.settle()  # reports the last steps; a listener may interrupt
            except TrainingStopped:
                interrupts.finish()
            except (KeyboardInterrupt, SystemExit) as error:
                interrupts.finish()
                if not recorder.n_steps:
                    raise
                ended_by = error
            attributes = ending.attributes() | {"wall_time_s": time.perf_counter() - started}
            trace = self._trace(recorder, net, data, attributes)
        if interrupts.signal is not None or (ended_by and not trace.attrs["interrupted"]):
            # for callers that have more to do: the interrupt may have come after the last step
            trace.attrs["asked_to_stop"] = 1
        if isinstance(ended_by, SystemExit):
            ended_by.trace = trace  # type: ignore[attr-defined]
            raise ended_by
        return trace

    def _tell(self, listener: Guarded, recorder: Recorder, ending: _Ending) -> None:
        """Tell a listener of recorded steps, and how far the training is between them."""
        recorder.session.total = self.experiment.steps
        recorder.session.subscribe(listener)
        if self.experiment.every > 1:
            ending.tell_progress(listener)

    def _trace(
        self, recorder: Recorder, net: dp.Net, data: Data, attributes: dict[str, Any]
    ) -> Trace:
        """What was recorded, of which experiment, and what the net decides."""
        experiment = self.experiment
        described = {
            "experiment": experiment.model_dump_json(),
            "experiment_hash": experiment.hash,
            "seed": experiment.seed,
            "dtype": experiment.dtype,
            "versions": json.dumps(versions()),
        }
        members = experiment.seeds if experiment.members > 1 else None
        trace = recorder.to_trace(described | attributes, members=members)
        # a plane takes two features
        if experiment.decision and data.n_features >= 2:
            try:
                add_decision(trace, net, data)
            except MemoryError:  # a picture less, instead of a training
                trace.attrs["decision_missing"] = "there was not enough memory"
        return trace


class _Ending(dp.ProgramCallback):
    """Counts the steps that were completed, and ends the training when it is time."""

    reads_loss = False
    only_reads = True

    def __init__(self, steps: int, interrupts: Interrupts, timeout: float | None) -> None:
        self.steps, self.interrupts, self.timeout = steps, interrupts, timeout
        self.done = 0
        self.late = False
        self._end = None if timeout is None else time.monotonic() + timeout
        self._tell: Listener | None = None
        self._tell_at = math.inf  # the next step at which progress is told

    def tell_progress(self, listener: Listener) -> None:
        """Tell a listener about each hundredth of the training."""
        self._tell, self._tell_at = listener, 1

    def after_update(self, step: dp.Step) -> None:
        self._count(step.number)

    def after_program_update(self, number: int, _arrays: StepArrays) -> None:
        self._count(number)

    def _count(self, number: int) -> None:
        self.done = number
        if self.interrupts.raised and number < self.steps:
            raise KeyboardInterrupt
        if self._end is not None and number < self.steps and time.monotonic() > self._end:
            self.late = True
            raise OutOfTime
        if number >= self._tell_at and self._tell is not None:
            self._tell_at = number + max(1, self.steps // 100)
            self._tell(Progressed(number, self.steps))

    def attributes(self) -> dict[str, Any]:
        """What a trace says of how far the training came, and what ended it."""
        found: dict[str, Any] = {
            "steps_done": self.done,
            "interrupted": int(self.done < self.steps),
        }
        if self.late and self.timeout:
            found["time_limit"] = float(self.timeout)
        return found


def _in_words(error: ValidationError, file: str = "", elsewhere: Collection[str] = ()) -> str:
    """What is wrong, setting by setting; with the file's name, unless it came from elsewhere."""
    lines = []
    for detail in error.errors():
        what = ".".join(str(part) for part in detail["loc"][:2])
        message = detail["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        value = "" if detail["type"] == "value_error" else f", got {detail['input']!r}"
        line = f"{what}: {message}{value}" if what else f"{message}{value}"
        blamed = file and (not detail["loc"] or detail["loc"][0] not in elsewhere)
        lines.append(f"{file}: {line}" if blamed else line)
    return "; ".join(dict.fromkeys(lines))
