"""Optimisers: a training loop, and the rules by which a gradient changes a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dp.callbacks import Callback, ProgramCallback, Step
from dp.hyperparameters import NotedDict, warn_unread
from dp.mode import Mode, mode
from dp.node import Node
from dp.parameters import members_of, registered
from dp.validation import decay, positive_integer, positive_number, seeds, shown
from dp.watching import loop

Array = NDArray[Any]


STREAMS = "_dp_streams"


def streams_of(optimizer: Any) -> list[np.random.Generator] | None:
    """What an optimiser draws its batches from, one per member; None is NumPy's global stream."""
    found: list[np.random.Generator] | None = vars(optimizer).get(STREAMS)
    return found


class _Streams:
    def __get__(self, optimizer: Any, owner: type) -> Any:
        return self if optimizer is None else streams_of(optimizer)


def _dtype(model: Any) -> Any:
    kept = registered(model)
    return None if kept is None else kept.dtype


class Optimizer:
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

    defaults: ClassVar[Mapping[str, float]] = {}
    num_grad_stores: ClassVar[int] = 0
    # for subclasses with an __init__ of their own
    hyperparam: Mapping[str, Any] = MappingProxyType({})
    batch_size: int = 128
    compile: bool = False
    # what a subclass's own attribute may hide: the library itself asks `streams_of`
    _streams = _Streams()

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
        _check_data(x_train, y_train, _dtype(model))
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
            drawn = seeds(seed)
            # The second word keeps a batch stream apart from that of weights with the same seed.
            vars(self)[STREAMS] = [np.random.default_rng((one, 1)) for one in drawn]
            members = members_of(model)
            if len(drawn) != (members or 1):
                raise ValueError(
                    f"the model has {members or 1} member(s), but {len(drawn)} seed(s) were given "
                    "for their batches"
                )
        Optimizer._take_hyperparameters(self)

    def _take_hyperparameters(self) -> None:
        """Call `_set_param`, and warn of what neither it nor a subclass's other methods read."""
        given = self.hyperparam
        if type(given) is not dict:  # one that gives values for missing names, say
            self._set_param()
            return
        self.hyperparam = noted = NotedDict(given)
        self._set_param()
        if self.hyperparam is noted:  # and no other that a subclass has put there
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

    def random_batch(self) -> tuple[Node, Node]:
        """Draw `batch_size` rows with replacement; for an ensemble, each member draws its own.

        Returns
        -------
        (Node, Node)
            x (…, batch, features) and y (…, batch, outputs).
        """
        (rows,) = self.draw_rows(1)
        return self._batch(self.x_train, rows), self._batch(self.y_train, rows)

    def draw_rows(self, steps: int) -> list[Array]:
        """Draw the rows of several steps' batches, as many calls for one step would.

        Returns
        -------
        list of arrays
            One per step, (batch,) or (members, batch).
        """
        n, size = self.x_train.shape[0], (steps, self.batch_size)
        members, streams = members_of(self.model), streams_of(self)
        if streams is not None:
            # as NumPy's indices are, which on 32-bit platforms are not what `integers` gives
            drawn = [s.integers(0, n, size=size).astype(np.intp, copy=False) for s in streams]
            return list(drawn[0] if members is None else np.stack(drawn, axis=1))
        one: Any = self.batch_size if members is None else (members, self.batch_size)
        draws = (np.random.randint(0, n, size=one) for _ in range(steps))
        return [rows.astype(np.intp, copy=False) for rows in draws]

    def draws_rows(self) -> bool:
        """Whether batches are rows drawn as `random_batch` does, and none of a subclass's own."""
        return self.x_train.ndim <= 2 and not any(
            method in vars(self) or getattr(type(self), method) is not getattr(Optimizer, method)
            for method in ("random_batch", "draw_rows", "_batch")
        )

    def elementwise(self) -> bool:
        """Whether `_update` is the library's own, which treats each number alike and alone."""
        known = (SGD._update, SGD_Momentum._update, RMS_Prop._update, Adam._update)
        computed = any(
            hasattr(getattr(type(self), name, None), "__get__") for name in self.defaults
        )
        return type(self)._update in known and "_update" not in vars(self) and not computed

    def program_callbacks(self) -> list[ProgramCallback]:
        """Those callbacks that read a compiled step's buffers."""
        return [c for c in self._callbacks() if isinstance(c, ProgramCallback)]

    def other_callbacks(self) -> list[Callable[[Step], Any] | Callback]:
        """Those that are handed parameters and gradients by name."""
        return [c for c in self._callbacks() if not isinstance(c, ProgramCallback)]

    def _callbacks(self) -> Iterable[Callable[[Step], Any] | Callback]:
        return getattr(self, "callbacks", ())  # a subclass may have an __init__ of its own

    @staticmethod
    def _print(number: int, loss: Array) -> None:
        print(number, "\t", loss[0, 0] if loss.ndim == 2 else loss.mean())

    def _batch(self, data: Array, rows: Array) -> Node:
        picked = data.take(rows, axis=0)
        if data.ndim == 1:
            picked = picked[..., None]  # labels as a column, also in a stack
        dtype = _dtype(self.model)
        return Node(picked if dtype is None else picked.astype(dtype, copy=False))

    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        """Change parameter `g` by its gradient in step `i` (from 1); the subclass's.

        The rules of the library are written with operations that Nodes have too, so that a program
        can show them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define _update")

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
            from dp.program import training

            done, loss, batch = training.train(self, steps, num_grad_stores, print_each)
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
            Optimizer._update_all(self, param, grad, i)
            for callback in callbacks:
                if isinstance(callback, Callback):
                    callback.after_update(step)
                else:
                    callback(step)
        last: Array = loss.value
        return last

    def _update_all(self, param: dict[str, Array], grad: dict[str, Array], i: int) -> None:
        """Change the model's parameters by their gradients in step `i`: all of them, or none.

        If an interrupt or an error comes in between, parameters and `grad_stores` are put back.
        """
        before = {
            # the same, but for speed
            name: value.copy() if type(value) is np.ndarray else np.array(value)
            for name, value in param.items()
        }
        stores = [
            (store, name, value, value.copy())
            for store in self.grad_stores
            for name, value in store.items()
        ]
        try:
            for g in param:
                if g in grad:
                    self._update(param, grad, g, i)
            self.model.set_param(param)  # for an `_update` that replaces arrays
        except BaseException:
            self.model.set_param(before)
            for store, name, value, kept in stores:
                value[...] = kept
                store[name] = value
            raise


class SGD(Optimizer):
    """Stochastic gradient descent: w -= alpha · dL/dw."""

    defaults = {"alpha": 0.001}  # noqa: RUF012
    alpha: float

    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        param[g] -= self.alpha * grad[g]


class SGD_Momentum(Optimizer):
    """Descent along a running average of the gradients: v = beta v + (1 - beta) dL/dw."""

    defaults = {"alpha": 0.001, "beta": 0.9}  # noqa: RUF012
    num_grad_stores = 1
    alpha: float
    beta: float

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

    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        average, square = self.grad_stores
        average[g] *= self.beta1
        average[g] += (1 - self.beta1) * grad[g]
        square[g] *= self.beta2
        square[g] += (1 - self.beta2) * grad[g] ** 2
        root = np.sqrt(square[g] / (1 - self.beta2**i))
        param[g] -= self.alpha * (average[g] / (1 - self.beta1**i)) / (root + self.epsilon)


_CALLED_BY_THE_CLASS = ("_steps", "_train_eagerly", "_update_all", "_take_hyperparameters")


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
    for name, method in vars(Optimizer).items():
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


def _check_data(x_train: Any, y_train: Any, dtype: Any) -> None:
    for what, data in (("x_train", x_train), ("y_train", y_train)):
        if data is None:
            continue
        if not isinstance(data, np.ndarray):
            raise TypeError(f"{what} must be a NumPy array, got {type(data).__name__}")
        if data.dtype.kind not in "biuf" or isinstance(data, np.ma.MaskedArray):
            raise TypeError(
                f"{what} must be a plain array of real numbers, got {type(data).__name__} of dtype "
                f"{data.dtype}"
            )
        if not data.ndim or not len(data):
            raise ValueError(f"{what} needs at least one row, got shape {data.shape}")
        with np.errstate(over="ignore"):
            finite = np.isfinite(data if dtype is None else data.astype(dtype, copy=False))
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"{what} has {data[where]} at {where}; all entries must be finite"
                + ("" if dtype is None else f", as {np.dtype(dtype)}")
            )
    if x_train is not None and y_train is not None and len(x_train) != len(y_train):
        raise ValueError(
            f"x_train has {len(x_train)} rows, y_train {len(y_train)}; they must be as many"
        )
