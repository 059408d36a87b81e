"""What a figure, a sentence or an export may ask of a run, a study, a prediction: protocols.

Figures, sentences and exports know these and nothing above them. `Trace`, `StudyResults` and
`Prediction` satisfy them; so does whatever else has labelled numbers to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class LabelledRun(Protocol):
    """What one run recorded; see `Trace`."""

    @property
    def dataset(self) -> xr.Dataset:
        """Dims `step`, `layer` and, for an ensemble, `member`; a variable per quantity."""

    @property
    def attrs(self) -> dict[str, Any]:
        """Facts about the run."""

    @property
    def experiment(self) -> Mapping[str, Any]:
        """The settings of the experiment; empty if the run was recorded without one."""

    @property
    def layers(self) -> list[str]:
        """Their names, in the order of the forward pass."""

    @property
    def ensemble(self) -> bool:
        """Whether there are several members."""

    def __getitem__(self, name: str) -> xr.DataArray:
        """A quantity by name; (step, layer[, member]), or (step[, member])."""

    def status(self, name: str) -> xr.DataArray:
        """The state of each of a quantity's numbers: codes of `gradiometer.State`."""


class DescribedExperiment(Protocol):
    """The settings of a run; see `Experiment`. Each setting is an attribute, too."""

    @property
    def hash(self) -> str:
        """Names its results."""

    @property
    def quantities(self) -> Sequence[str] | None:
        """Which are recorded of every layer; None means all."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All settings; as JSON has them, if the mode is "json"."""


class LabelledPrediction(Protocol):
    """What theory says of a run's first step; see `Prediction`. Arrays have an entry per layer.

    Besides these, each of `gradient` and `delta` has `_low`, `_high` (the ends of the band that
    holds 90 % of nets) and `_wide` (the median at infinite width).
    """

    @property
    def experiment(self) -> DescribedExperiment:
        """What it is a prediction of."""

    @property
    def layers(self) -> Sequence[str]:
        """Names, as in a trace."""

    @property
    def gradient(self) -> NDArray[Any]:
        """Median of mean |dL/dW|; (layers,)."""

    @property
    def delta(self) -> NDArray[Any]:
        """Median of the rms of the delta; (layers,)."""

    @property
    def basis(self) -> str:
        """What median and band were taken from, in a sentence."""

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise ValueError if these are not the layers that it is of."""


class DescribedStudy(Protocol):
    """Which experiments a study has; see `Study`."""

    @property
    def members(self) -> int:
        """Nets per experiment."""

    @property
    def experiments(self) -> Sequence[DescribedExperiment]:
        """All of them, finished or not."""

    @property
    def axes(self) -> Mapping[str, tuple[Any, ...]]:
        """The settings that differ, with their values."""

    @property
    def is_grid(self) -> bool:
        """Whether there is an experiment for each combination of the axes' values."""


class LabelledStudy(Protocol):
    """What a study found; see `StudyResults`."""

    @property
    def study(self) -> DescribedStudy:
        """What was to be run."""

    @property
    def finished(self) -> Sequence[DescribedExperiment]:
        """Those experiments of which there are results."""

    @property
    def outcomes(self) -> pd.DataFrame:
        """What became of each net: a row per experiment and member."""

    def summary(self) -> pd.DataFrame:
        """Medians over members with their intervals: a row per experiment."""

    def trace(self, experiment: Any) -> LabelledRun:
        """What one of the finished experiments recorded."""
