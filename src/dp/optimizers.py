"""Optimisers: SGD, momentum, RMSProp and Adam, their hyperparameters and the eager loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from dp.batches import STREAMS, Batches, check_data, streams
from dp.callbacks import Callback, Step
from dp.hyperparameters import NotedDict, warn_unread
from dp.mode import Mode, mode
from dp.node import Node
from dp.parameters import registered
from dp.typing import Array
from dp.updates import Updates, entry_by_entry, update_all
from dp.validation import decay, positive_integer, positive_number, shown
from dp.watching import loop


class Optimizer(Updates):
    """The training loop; subclasses say in `_update` how a gradient changes a parameter.

    Parameters
    ----------
    model : Model
    x_train : array (samples, features)
    y_train : array (samples, outputs), or a 1-D array of labels
    hyperparam : dict, optional
        Values for the names in the class's `defaults`.
    batch_size : int
        Rows per step, drawn with replacement.
    seed : int, sequence of ints, or None
        Of the batches. None draws from NumPy's global stream. For an ensemble, a sequence gives
        each member the batches it would draw alone with that seed.
    callbacks : iterable
        Each a `Callback`, or a function `f(step)` that is called after every update.
    compile : bool
        Capture the step once and replay it (see `dp.capture`): the same numbers but for rounding,
        several times faster. A loss that cannot be captured is refused in the first step; if
        something that it depends on changes, the steps from there on are not compiled.

    Raises
    ------
    ValueError
        For batch sizes, steps or rates that are not positive, data that is not finite, or numbers
        of rows that differ.
    """

    # for subclasses with an __init__ of their own
    hyperparam: Mapping[str, Any] = MappingProxyType({})
    compile: bool = False

    def __init__(
        self,
        model: Any,
        x_train: Any = None,
        y_train: Any = None,
        hyperparam: Mapping[str, Any] | None = None,
        batch_size: int = 128,
        *,
        seed: int | Sequence[int] | None = None,
        callbacks: Iterable[Callable[[Step], Any] | Callback] = (),
        compile: bool = False,  # noqa: A002 (the word that users of other frameworks know)
    ) -> None:
        if compile and type(self)._train is not Optimizer._train:
            raise ValueError(
                f"{type(self).__name__} has its own _train, which compile=True would not call"
            )
        self.compile = compile
        positive_integer("batch_size", batch_size)
        check_data(x_train, y_train, model)
        self.model = model
        self.x_train = x_train
        self.y_train = y_train
        self.batch_size = batch_size
        self.hyperparam = {} if hyperparam is None else hyperparam
        self.callbacks: list[Callable[[Step], Any] | Callback] = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback) and not callable(callback):
                raise TypeError(f"a callback must be a Callback or a function, got {callback!r}")
        self.grad_stores: list[dict[str, Array]] = []
        if seed is not None:
            vars(self)[STREAMS] = streams(seed, model)
        Optimizer._take_hyperparameters(self)

    def _take_hyperparameters(self) -> None:
        """Call `_set_param`, and warn of what neither it nor a subclass's other methods read."""
        given = self.hyperparam
        if type(given) is not dict:  # such as a defaultdict
            self._set_param()
            return
        self.hyperparam = noted = NotedDict(given)
        self._set_param()
        if self.hyperparam is noted:  # a subclass may have replaced it
            self.hyperparam = given
        warn_unread(self, noted.unread(), stacklevel=4)

    def _set_param(self) -> None:
        """Take the hyperparameters over as attributes."""
        if not isinstance(self.hyperparam, Mapping):
            raise TypeError(
                f"hyperparam must be a dict, such as {dict(self.defaults)}, got {self.hyperparam!r}"
            )
        if not isinstance(self.hyperparam, NotedDict):  # called by an __init__ of a subclass's own
            given = [name for name in self.hyperparam if name not in self.defaults]
            warn_unread(self, given, stacklevel=4)
        for name, default in self.defaults.items():
            value = self.hyperparam.get(name, default)
            setattr(self, name, self.check_hyperparameter(name, value))

    @staticmethod
    def check_hyperparameter(name: str, value: Any) -> float:
        """Give a hyperparameter as a float; those named beta… are decays, the others rates.

        Raises
        ------
        ValueError
            If a decay does not lie in [0, 1), or a rate is not a finite number above 0.
        """
        return decay(name, value) if name.startswith("beta") else positive_number(name, value)

    def train(self, steps: int = 1000, print_each: int | None = 100) -> Array:
        """Train, printing `iteration<TAB>loss` in the first and every `print_each`-th step.

        Parameters
        ----------
        steps : int
            Number of updates.
        print_each : int or None
            None or 0 prints nothing.

        Returns
        -------
        array (1, 1) or (members, 1, 1)
            The last step's loss.

        Raises
        ------
        ValueError
            If a number is not positive, or there is no data to train on.
        """
        errors = np.geterr()
        try:
            return self._train(steps, self.num_grad_stores, print_each)
        except BaseException:
            np.seterr(**errors)  # an interrupt may have kept NumPy from doing so itself
            raise

    def _train(
        self, steps: int = 1000, num_grad_stores: int = 0, print_each: int | None = 100
    ) -> Array:
        with loop(self):
            return Optimizer._steps(self, steps, num_grad_stores, print_each)

    def _steps(self, steps: int, num_grad_stores: int, print_each: int | None) -> Array:
        positive_integer("steps", steps)
        if print_each:
            positive_integer("print_each", print_each)
        if self.x_train is None or self.y_train is None:
            raise ValueError("x_train and y_train are needed for training, got None")
        for method in ("get_param", "set_param", "get_grad"):
            if not hasattr(self.model, method):
                raise TypeError(
                    f"the model must have {method}, as dp.Model has; got {self.model!r}"
                )
        _check_methods(self)
        if print_each:
            print("iteration\tloss")
        done, batch = 0, None
        # eager steps say what is wrong inside these
        if self.compile and mode() == Mode():
            from dp.program.loop import train as train_compiled

            done, loss, batch = train_compiled(self, steps, num_grad_stores, print_each)
            if loss is not None:
                return loss
        if not done:
            param = self.model.get_param()
            _check_parameters(self.model, param)
            self.grad_stores = [
                {name: np.zeros_like(value) for name, value in param.items()}
                for _ in range(num_grad_stores)
            ]
        return Optimizer._train_eagerly(self, range(done + 1, steps + 1), print_each, batch)

    def _train_eagerly(
        self, numbers: range, print_each: int | None, batch: tuple[Node, Node] | None
    ) -> Array:
        """Make the steps of these numbers; `batch` is the first one's, if it was drawn already."""
        callbacks = self._callbacks()
        for i in numbers:
            param = self.model.get_param()
            x, y = batch or self.random_batch()
            batch = None
            grad, loss = self.model.get_grad(x, y)
            if i == 1:
                _check_trained(self.model, param, grad)
            if print_each and (i == 1 or i % print_each == 0):
                self._print(i, loss.value)
            step = Step(i, x, y, loss, grad, param)
            for callback in callbacks:
                if isinstance(callback, Callback):
                    callback.before_update(step)
            update_all(self, param, grad, i)
            for callback in callbacks:
                if isinstance(callback, Callback):
                    callback.after_update(step)
                else:
                    callback(step)
        last: Array = loss.value
        return last


class SGD(Optimizer):
    """Stochastic gradient descent: w -= alpha · dL/dw."""

    defaults = {"alpha": 0.001}  # noqa: RUF012
    alpha: float

    @entry_by_entry
    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        param[g] -= self.alpha * grad[g]


class SGD_Momentum(Optimizer):
    """Descent along a running average of the gradients: v = beta v + (1 - beta) dL/dw."""

    defaults = {"alpha": 0.001, "beta": 0.9}  # noqa: RUF012
    num_grad_stores = 1
    alpha: float
    beta: float

    @entry_by_entry
    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        average = self.grad_stores[0]
        average[g] *= self.beta
        average[g] += (1 - self.beta) * grad[g]
        param[g] -= self.alpha * average[g]


class RMS_Prop(Optimizer):
    """The gradient divided by the root of its running mean square (bias-corrected)."""

    defaults = {"alpha": 0.001, "beta2": 0.99, "epsilon": 1e-8}  # noqa: RUF012
    num_grad_stores = 1
    alpha: float
    beta2: float
    epsilon: float

    @entry_by_entry
    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        square = self.grad_stores[0]
        square[g] *= self.beta2
        square[g] += (1 - self.beta2) * grad[g] ** 2
        root = np.sqrt(square[g] / (1 - self.beta2**i))
        param[g] -= self.alpha * grad[g] / (root + self.epsilon)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    defaults = {"alpha": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}  # noqa: RUF012
    num_grad_stores = 2
    alpha: float
    beta1: float
    beta2: float
    epsilon: float

    @entry_by_entry
    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        average, square = self.grad_stores
        average[g] *= self.beta1
        average[g] += (1 - self.beta1) * grad[g]
        square[g] *= self.beta2
        square[g] += (1 - self.beta2) * grad[g] ** 2
        root = np.sqrt(square[g] / (1 - self.beta2**i))
        param[g] -= self.alpha * (average[g] / (1 - self.beta1**i)) / (root + self.epsilon)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": SGD_Momentum,
    "rmsprop": RMS_Prop,
    "adam": Adam,
}


_CALLED_BY_THE_CLASS = ("_steps", "_train_eagerly", "_take_hyperparameters")


def _check_parameters(model: Any, param: Mapping[str, Any]) -> None:
    """Refuse a model that gives nothing to train, or Nodes instead of arrays."""
    if not param:
        raise ValueError(
            f"{type(model).__name__} has no parameters to train: make layers, or parameters with "
            'self.Parameter(value, "name"), in its __init__'
        )
    for name, value in param.items():
        if isinstance(value, Node):
            raise TypeError(
                f"{type(model).__name__}.get_param gives {name!r} as a Node; it must give the live "
                "array, node.value"
            )


def _check_methods(optimizer: Any) -> None:
    """Refuse attributes of a subclass's own that hide methods of the training loop."""
    for name, method in {**vars(Batches), **vars(Updates), **vars(Optimizer)}.items():
        known = inspect.isfunction(method) or isinstance(method, staticmethod)
        known = known and name not in _CALLED_BY_THE_CLASS  # which nothing hides
        if known and not callable(found := getattr(optimizer, name)):
            raise AttributeError(
                f"{type(optimizer).__name__} has set self.{name} to {shown(found)}, which hides "
                f"the method {name} of its training loop; give the attribute another name"
            )


def _check_trained(model: Any, param: Mapping[str, Any], grad: Mapping[str, Any]) -> None:
    """Refuse an own get_grad that gives the gradient of a Node which get_param does not list."""
    own = registered(model)
    kept = {
        value.name: attribute
        for attribute, value in getattr(model, "__dict__", {}).items()
        if isinstance(value, Node)
    }
    for name in grad:
        left_out = own is not None and name in own.parameters  # on purpose: it is frozen
        if name not in param and name in kept and not left_out:
            raise ValueError(
                f"get_grad gives the gradient of self.{kept[name]}, but get_param does not list "
                f"{name!r}, so it would not be trained; make it with self.Parameter(value, "
                f'"{name}")'
            )
