"""try_remedies: change one thing at a time, train again on the same seeds, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from dp.typing import Array
from gradiometer.diagnosis import diagnose
from gradiometer.events import (
    Guarded,
    Interrupted,
    Listener,
    RemediesBegun,
    RemediesFound,
    RemedyTried,
)
from gradiometer.interrupts import Interrupts, OutOfTime, check_time_limit
from gradiometer.optional import library
from gradiometer.remedies.applying import Deadline, NotApplicable
from gradiometer.remedies.candidates import Candidate, chosen, in_turn
from gradiometer.remedies.ranking import Measured, plain, random_remedy, ranked
from gradiometer.remedies.rate import fitting_factor
from gradiometer.remedies.results import Ended, NotTried, Remedies, Tried
from gradiometer.remedies.trials import Trials
from gradiometer.remedies.words import WHY_ENDED, in_words

if TYPE_CHECKING:
    from gradiometer.diagnosis import Diagnosis
    from gradiometer.trace import Trace

SEEDS_OF_EXPERIMENT, SEEDS_OF_MODEL = 10, 5
NO_MODEL = "there is no make_model"


def try_remedies(
    trace: Trace,
    *,
    make_model: Callable[[int], tuple[Any, Any]] | None = None,
    train: Callable[..., Any] | None = None,
    seeds: int | None = None,
    budget: float | None = None,
    candidates: Iterable[str] | None = None,
    on_event: Listener | None = None,
) -> Remedies:
    """Try changes to a net that fails, and say which of them mends it.

    Each candidate changes one thing and is trained on the same seeds, with the same order of the
    data, for as many steps. It is recommended if it beats both: changing nothing, and a candidate
    drawn at random, by intervals that exclude zero; see `gradiometer.remedies.effects`. What is
    compared is the accuracy or R² where there is one, otherwise the original loss, also of a remedy
    that changes the loss.

    A trace of an experiment needs nothing else. For a model of your own, of PyTorch, say how it is
    made and how it is trained::

        def make_model(seed):
            model = torch.nn.Sequential(…)
            return model, torch.optim.SGD(model.parameters(), lr=0.1)

        def train(model, optimizer):
            …
            return {"accuracy": …}  # on fixed rows, after the last step

    Parameters
    ----------
    trace : Trace
        Of the net that fails. Its diagnosis says which candidates come first.
    make_model : callable, optional
        Of a seed, with which PyTorch's, NumPy's and Python's random numbers begin; gives the model,
        a `torch.nn.Module`, and its optimizer. It is called for each seed and candidate.
    train : callable, optional
        Trains that model with that optimizer, from where the random numbers are after `make_model`.
        It returns what was reached, a dict with "accuracy", "r2" or "loss", on rows that are always
        the same. If it returns none, the mean loss of the last tenth of the steps counts. If it has
        a parameter `loss`, it is called with another loss function (outputs, targets) -> number to
        try candidates that change the loss, and must say what was reached.
    seeds : int, optional
        How many: 10 for an experiment, whose nets are trained side by side, and 5 for a model of
        your own by default. With a single one nothing is recommended, as there are no intervals.
    budget : float, optional
        Seconds after which no more is tried. What was tried until then is kept, as it is after an
        interrupt (Ctrl-C).
    candidates : iterable of str, optional
        Names in `CANDIDATES`. By default all, if the net fails, and none, if it is healthy.
    on_event : callable, optional
        Called with `RemediesBegun`, with `RemedyTried` after each, `Interrupted`, and
        `RemediesFound`; see `gradiometer.events`.

    Returns
    -------
    Remedies

    Raises
    ------
    ValueError
        For a number that is not positive, an unknown candidate, an outcome that cannot be read, or
        a model that was trained before.
    TypeError
        If `trace` is no Trace, only one of `make_model` and `train` is given, they are no
        functions, or they give something else.
    KeyboardInterrupt
        If it was interrupted before the unchanged net was trained.

    Examples
    --------
    >>> import gradiometer
    >>> trace = gradiometer.run(layers=6, learning_rate=0.01)
    >>> gradiometer.try_remedies(trace, candidates=["tanh", "he"]).recommended.name
    'tanh'
    """
    _check(trace, seeds, budget, make_model, train)
    diagnosis = diagnose(trace)
    causes = [verdict.cause for verdict in diagnosis if verdict.cause is not None]
    listed = chosen(candidates, causes)
    tell = Guarded(on_event)
    if diagnosis.healthy and candidates is None:
        found = Remedies(healthy=True)
    elif (trials := _trials(trace, make_model, train, seeds, causes)) is None:
        rows = tuple(_untried(each, NO_MODEL) for each in listed)
        found = Remedies(not_tried=rows, advice=diagnosis.verdict.advice)
    else:
        attempt = _Attempt(trials, listed, tell)
        attempt.make(in_turn(listed, causes), Deadline(budget))
        found = attempt.results(diagnosis)
    found = in_words(found)
    tell(RemediesFound(found))
    return found


def _check(trace: Any, seeds: Any, budget: Any, make_model: Any, train: Any) -> None:
    from dp.validation import positive_integer
    from gradiometer.trace import Trace

    if not isinstance(trace, Trace):
        raise TypeError(f"remedies are tried for a Trace, got {type(trace).__name__}")
    if seeds is not None:
        positive_integer("seeds", seeds)
    check_time_limit(budget, "budget")
    if (make_model is None) != (train is None):
        lacking = "train" if train is None else "make_model"
        raise TypeError(f"make_model and train belong together; {lacking} is not given")
    for name, given in (("make_model", make_model), ("train", train)):
        if given is not None and not callable(given):
            raise TypeError(f"{name} must be a function, got {given!r}")


def _trials(
    trace: Trace, make_model: Any, train: Any, seeds: int | None, causes: Sequence[str]
) -> Trials | None:
    if make_model is not None:
        library("torch", "torch", "trying remedies for a model of your own")
        from gradiometer.remedies.torch.trials import ModelTrials

        return ModelTrials(
            make_model, train, seeds or SEEDS_OF_MODEL, fitting_factor(trace), causes
        )
    if trace.experiment:
        from gradiometer.experiment import Experiment
        from gradiometer.remedies.experiments import ExperimentTrials

        experiment = Experiment.of(**trace.experiment)
        return ExperimentTrials(experiment, seeds or SEEDS_OF_EXPERIMENT, fitting_factor(trace))
    return None


@dataclass
class _Attempt:
    """All trials of a net, and what came of them so far; the candidates by how promising."""

    trials: Trials
    candidates: Sequence[Candidate]
    tell: Guarded
    unchanged: Array | None = None
    tried: list[Measured] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # name -> why
    ended: Ended = ""

    def make(self, order: Sequence[Candidate], deadline: Deadline) -> None:
        """Train without a change, then with each one, until all is tried or the time is over."""
        with Interrupts() as interrupts:
            try:
                self._make(order, deadline)
                interrupts.check()
            except OutOfTime:
                self.ended = "time"
            except KeyboardInterrupt:
                interrupts.finish()
                self.ended = "interrupted"
                done = len(self.tried) + len(self.refused)
                self.tell(Interrupted(interrupts.signal or SIGINT, "trying", done, len(order)))
                if self.unchanged is None:
                    raise

    def _make(self, order: Sequence[Candidate], deadline: Deadline) -> None:
        total = len(order)
        self.tell(RemediesBegun(total, len(self.trials.seeds)))
        self.unchanged = self.trials.run(None, deadline)
        before = float(self.unchanged.mean())
        for done, candidate in enumerate(order, 1):
            deadline.check()
            try:
                outcomes = self.trials.run(candidate, deadline)
            except NotApplicable as why:
                self.refused[candidate.name] = str(why)
                continue
            self.tried.append((candidate, outcomes))
            reached = float(outcomes.mean())
            outcome = self.trials.outcome
            self.tell(RemedyTried(candidate.words, done, total, outcome, reached, before))

    def results(self, diagnosis: Diagnosis) -> Remedies:
        """What came out."""
        names = {candidate.name for candidate, _ in self.tried}
        late = WHY_ENDED.get(self.ended, "")
        not_tried = tuple(
            _untried(each, self.refused.get(each.name, late))
            for each in self.candidates
            if each.name not in names
        )
        ranking: tuple[Tried, ...] = ()
        unchanged: tuple[float, ...] = ()
        if self.unchanged is not None:
            outcome, code = self.trials.outcome, self.trials.code
            ranking = ranked(self.tried, self.unchanged, outcome, self.candidates, code)
            unchanged = plain(self.unchanged)
        return Remedies(
            ranking,
            not_tried,
            self.trials.outcome if unchanged else "",
            self.trials.seeds,
            unchanged,
            random_remedy(self.tried),
            diagnosis.healthy,
            self.ended,
            diagnosis.verdict.advice,
        )


def _untried(candidate: Candidate, why: str) -> NotTried:
    return NotTried(candidate.name, candidate.words, why, candidate.code)
