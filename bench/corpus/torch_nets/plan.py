"""Plan: everything that decides a training, as plain values; a fault is one of them changed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Plan:
    """How a net is built, initialised, trained and recorded; the defaults are right everywhere.

    Attributes
    ----------
    task : str
        Name in `tasks.TASKS`.
    net : str
        Name in `nets.NETS`.
    depth : int
        Number of blocks between the first layer and the output layer.
    width : int
        Units, channels or features of each.
    length : int
        Of the sequences, of a task that draws them.
    activation : str
        Name in `nets.ACTIVATIONS`.
    norm : str
        "" or "batch" or "layer": before each activation function, in plain and convolutional nets.
    pool : str
        What a sequence or an image becomes before the output layer: "mean", "max", "last", "flat".
    initial : str
        Name in `initial.INITIAL`.
    gain : float
        Factor of the initial weights of the layers `changed`.
    bias : float
        Initial bias of the layers `changed`.
    changed : str
        Which layers gain and bias are for: "hidden" (all but the output layer), "middle" (one of
        them), "half" (the bias of every second unit of the hidden layers), "out", "recurrent".
    head : str
        "zero": the output layer begins with zeros. "zero branches": the last norm of each residual
        branch does.
    ending : str
        Function after the output layer: "" or "sigmoid", "softmax", "relu", "tanh".
    cut : str
        "detach" or "no_grad": no gradient reaches what is before the output layer. "each step": a
        recurrent state is detached in each step of the sequence.
    frozen : str
        "first", "trunk": layers that need no gradient; the trunk is all but the output layer.
    inputs, targets : str
        What was done to the data; names in `spoiling.INPUTS` and `spoiling.TARGETS`.
    loss : str
        Name in `losses.LOSSES`; "" for the one that suits the task.
    scale : float
        Factor of the loss; -1 maximises it.
    optimizer : str
        "sgd", "momentum", "adam", "adamw".
    rate, decay : float
        Learning rate and weight decay.
    schedule : str
        "" or a name in `training.SCHEDULES`.
    owned : str
        What the optimizer was given: "all", "first", "last", "all but first", "all but last".
    clear : str
        Where gradients are cleared: "before" the backward pass, "between" it and the step, "never".
    clip : float
        Greatest norm of the gradient; 0 for any.
    dropout : float
        In blocks that have it.
    steps, batch, before : int
        Recorded steps, rows in each, and steps before the recording begins.
    reference : bool
        Whether the recorder gets a reference batch.
    seed : int
    """

    task: str
    net: str
    depth: int = 2
    width: int = 24
    length: int = 8
    activation: str = "relu"
    norm: str = ""
    pool: str = "flat"
    initial: str = "suited"
    gain: float = 1.0
    bias: float = 0.0
    changed: str = "hidden"
    head: str = ""
    ending: str = ""
    cut: str = ""
    frozen: str = ""
    inputs: str = "standardised"
    targets: str = "right"
    loss: str = ""
    scale: float = 1.0
    optimizer: str = "sgd"
    rate: float = 0.1
    decay: float = 0.0
    schedule: str = ""
    owned: str = "all"
    clear: str = "before"
    clip: float = 0.0
    dropout: float = 0.0
    steps: int = 60
    batch: int = 64
    before: int = 0
    reference: bool = True
    seed: int = 0

    def but(self, **changes: Any) -> Plan:
        """Return the same plan with some values changed."""
        return replace(self, **changes)

    def settings(self) -> dict[str, Any]:
        """The values that are not the default, by name."""
        told = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in told.items() if value != default}
