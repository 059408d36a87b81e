"""Experiment: one run, described; running it gives a Trace."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import dp
from dp.activations import ACTIVATIONS
from dp.initializers import INITIALIZERS
from dp.validation import one_of, unknown
from gradiometer.data import DATASETS, Data, check_scaling, load
from gradiometer.decision import add_decision
from gradiometer.files import read_toml, write_atomically
from gradiometer.interrupts import Interrupts, OutOfTime, check_time_limit
from gradiometer.memory import check_memory
from gradiometer.recording import Recorder, record
from gradiometer.recording.requires import LAYER_QUANTITIES, PER_STEP
from gradiometer.versions import versions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dp.program.training import TrainingStep
    from gradiometer.trace import Trace

OPTIMIZERS = {
    "sgd": dp.SGD,
    "momentum": dp.SGD_Momentum,
    "rmsprop": dp.RMS_Prop,
    "adam": dp.Adam,
}

Progress = Callable[[int, int, float, float], None]


MOST = 10**9  # of layers, units, rows, steps: beyond it no array can be made, and words are better
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


# the settings that are a name in a table: in words, and the table
_NAMES: dict[str, tuple[str, Any]] = {
    "data": ("data set", DATASETS),
    "activation": ("activation", ACTIVATIONS),
    "init": ("initialiser", INITIALIZERS),
    "optimizer": ("optimiser", OPTIMIZERS),
}


class ExperimentError(ValueError):
    """A description that cannot be run, with what would be accepted."""


class Experiment(BaseModel):
    """A complete description of one run, checked and frozen.

    Two experiments with the same fields have the same `hash` and the same results. Every field is
    a flag of `gradiometer run` and a key of its TOML file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=True)

    data: str = Field("iris2", description="data set")
    scaling: str | float = Field(
        "standardise", description="of the features: standardise, raw, or a factor on the raw ones"
    )
    layers: int = Field(10, ge=1, le=MOST, description="number of hidden layers")
    width: int = Field(10, ge=1, le=MOST, description="units per hidden layer")
    activation: str = Field("sigmoid", description="activation function of the hidden layers")
    clip: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="ceiling of a clipped relu"
    )
    init: str = Field("dp", description="initialiser of the weights")
    init_scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor on the weights")
    normalisation: Literal["none", "layer", "batch"] = Field(
        "none", description="of the pre-activations"
    )
    residual: bool = Field(False, description="add each hidden layer's input to its output")
    loss: Literal["cross_entropy", "squared_error"] = Field("cross_entropy", description="loss")
    reduction: Literal["sum", "mean"] = Field("sum", description="of the loss over the batch")
    optimizer: str = Field("sgd", description="optimiser")
    learning_rate: float = Field(0.001, gt=0, allow_inf_nan=False, description="learning rate")
    hyperparameters: dict[str, float] = Field(
        default_factory=lambda: FrozenDict(),
        description="further ones of the optimiser: beta, beta1, …",
    )
    steps: int = Field(100, ge=1, le=MOST, description="number of updates")
    batch_size: int = Field(128, ge=1, le=MOST, description="rows per step, drawn with replacement")
    seed: int = Field(0, ge=0, lt=2**62, description="of the weights and batches")
    members: int = Field(
        1, ge=1, le=MOST, description="nets trained side by side: seeds seed, seed+1, …"
    )
    dtype: Literal["float32", "float64"] = Field("float64", description="floating type")
    every: int = Field(1, ge=1, le=MOST, description="record every k-th step")
    quantities: tuple[str, ...] | None = Field(
        None, description="which to record of every layer; all by default"
    )
    histograms: bool = Field(False, description="record log10 histograms of the gradients")
    decision: bool = Field(True, description="keep what the net decides in the plane of the data")

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in given:
                if name not in cls.model_fields:
                    raise ValueError(unknown("setting", name, cls.model_fields))
        return given

    @field_validator(*_NAMES)
    @classmethod
    def _known_name(cls, name: str, info: Any) -> str:
        kind, known = _NAMES[info.field_name]
        if name not in known:
            raise ValueError(unknown(kind, name, known))
        return name

    @field_validator("scaling", mode="before")
    @classmethod
    def _known_scaling(cls, scaling: Any) -> str | float:
        checked: str | float = check_scaling(scaling)
        return checked

    @field_validator("quantities", mode="before")
    @classmethod
    def _known_quantities(cls, quantities: Any) -> Any:
        if quantities is None:
            return None
        if isinstance(quantities, str) or not isinstance(quantities, Iterable):
            raise ValueError(f"expected a list of names, got {quantities!r}")
        named = list(quantities)
        for name in named:
            one_of("quantity", name, tuple(LAYER_QUANTITIES))
        if not {"grad_mean_abs", "grad_rms"}.intersection(named):
            raise ValueError(
                f"grad_mean_abs or grad_rms must be among them, for a run is about its gradient, "
                f"got {named!r}"
            )
        # in one order, so that equal choices have equal hashes
        return tuple(name for name in LAYER_QUANTITIES if name in named)

    @field_validator("hyperparameters", mode="after")
    @classmethod
    def _frozen(cls, hyperparameters: dict[str, float]) -> dict[str, float]:
        return FrozenDict(hyperparameters)

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        dp.activations.get(self.activation, self.clip)
        optimizer = OPTIMIZERS[self.optimizer]
        for name, value in self.hyperparameters.items():
            if name == "alpha":
                raise ValueError("alpha is the learning rate; set learning_rate")
            if name not in optimizer.defaults:
                raise ValueError(
                    unknown(f"hyperparameter of {self.optimizer}", name, optimizer.defaults)
                )
            optimizer.check_hyperparameter(name, value)
        return self

    @classmethod
    def of(cls, **settings: Any) -> Experiment:
        """Make an Experiment, with errors in plain words.

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
        usual = _defaults()
        return {k: v for k, v in self.model_dump(mode="json").items() if v != usual[k]}

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
            init=self.init,
            init_scale=self.init_scale,
            normalisation=self.normalisation,
            residual=self.residual,
            loss=self.loss,
            reduction=self.reduction,
            seed=self.seeds if self.members > 1 else self.seed,
            dtype=self.dtype,
        )

    def _optimizer(self, net: dp.Net, data: Data) -> dp.Optimizer:
        return OPTIMIZERS[self.optimizer](
            net,
            data.x,
            data.y,
            {"alpha": self.learning_rate, **self.hyperparameters},
            self.batch_size,
            seed=self.seeds if self.members > 1 else self.seed,
            compile=True,
        )

    def run(self, progress: Progress | None = None, *, timeout: float | None = None) -> Trace:
        """Train the net and record the flow of its gradient.

        Divergence is no error: non-finite values are recorded. An interrupt (Ctrl-C) ends the
        training; what was recorded until then is in the trace, whose `interrupted` is then 1.

        Parameters
        ----------
        progress : callable, optional
            `progress(step, steps, loss, accuracy)`, called after each step (means over members).
        timeout : float, optional
            Seconds after which the training ends, as by an interrupt; checked after each step. The
            trace's attribute `time_limit` then holds them.

        Returns
        -------
        Trace

        Raises
        ------
        TooLargeError
            If it needs more memory than there is; raised before anything is allocated.
        """
        check_time_limit(timeout)
        check_memory(self)
        data = self.load_data()
        net = self.net(data)
        optimizer = self._optimizer(net, data)
        started = time.perf_counter()
        with (
            Interrupts() as interrupts,
            np.errstate(all="ignore"),
            record(
                net,
                optimizer,
                reference=(data.x, data.y),
                every=self.every,
                histograms=self.histograms,
                quantities=self.quantities and (*self.quantities, *PER_STEP),
            ) as recorder,
        ):
            counting = _Counting(self.steps, recorder, progress, interrupts, timeout)
            optimizer.callbacks.append(counting)
            try:
                optimizer.train(self.steps, print_each=None)
                interrupts.finish()
            except KeyboardInterrupt:
                interrupts.finish()
                if not recorder.n_steps:
                    raise
            trace = recorder.to_trace(
                {
                    "experiment": self.model_dump_json(),
                    "experiment_hash": self.hash,
                    "seed": self.seed,
                    "dtype": self.dtype,
                    "versions": json.dumps(versions()),
                    "wall_time_s": time.perf_counter() - started,
                    "steps_done": counting.done,
                    "interrupted": int(counting.done < self.steps),
                    # whoever has more to do looks at this: it may have come after the last step
                    **({"asked_to_stop": 1} if interrupts.signal is not None else {}),
                    **({"time_limit": float(timeout)} if counting.late and timeout else {}),
                },
                members=self.seeds if self.members > 1 else None,
            )
            # a plane takes two features
            if self.decision and data.n_features >= 2:
                try:
                    add_decision(trace, net, data)
                except MemoryError:  # a picture less, instead of a training
                    trace.attrs["decision_missing"] = "there was not enough memory"
        return trace


@functools.cache
def _defaults() -> dict[str, Any]:
    """The settings that an experiment has if none is given, as JSON has them."""
    return Experiment.of().model_dump(mode="json")


class _Counting(dp.ProgramCallback):
    """Counts the steps that were completed, and reports them."""

    # the recorder reads it anyway
    reads_loss = True
    only_reads = True

    def __init__(
        self,
        steps: int,
        recorder: Recorder,
        progress: Progress | None,
        interrupts: Interrupts,
        timeout: float | None = None,
    ) -> None:
        self.steps, self.recorder, self.progress = steps, recorder, progress
        self.interrupts = interrupts
        self.done = 0
        self.late = False
        self._end = None if timeout is None else time.monotonic() + timeout

    def after_update(self, step: dp.Step) -> None:
        self._count(step.number, step.loss.value)

    def after_program_update(self, number: int, step: TrainingStep) -> None:
        self._count(number, step.loss)

    def _count(self, number: int, loss: NDArray[Any]) -> None:
        self.done = number
        if self.interrupts.raised and number < self.steps:
            raise KeyboardInterrupt
        if self._end is not None and number < self.steps and time.monotonic() > self._end:
            self.late = True
            raise OutOfTime
        if self.progress is not None:
            self.progress(number, self.steps, float(loss.mean()), self.recorder.accuracy)


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
