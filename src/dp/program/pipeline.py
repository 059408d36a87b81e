"""How a captured graph becomes the fast form: read this first.

    capture   a function, run on Nodes      -> the graph of its value and gradients  (Captured)
    layout    parameters in blocks, in one vector                                      (Layout)
    lower     the operations                                                          (Lowered)
    merge     … those of several layers at once; optional                              (Merged)
    buffers   where everything lies                                                   (Buffers)
    emit      the calls, written down and compiled                                    (Emitted)

Optional is what pays for small nets only, of about ten units, where an operation costs more for
being called than for being done. With `small_nets=False` there is no `merge`, and `lower` computes
nothing with the batch, no product with a sigmoid, and with no negated parameters. The page on
performance has what each part buys, and what it costs in lines.

Each pass is a function from values to a frozen value, in the module of its name. `graph` has the
values that all of them are about, `notation` how each primitive is written, `products` how BLAS is
asked for a product, `tables` where a batch lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dp.program.buffers import place
from dp.program.capture import Captured
from dp.program.emit import emit
from dp.program.graph import Value
from dp.program.layout import Layout, lay_out
from dp.program.lower import lower
from dp.program.merge import merge, unmerged
from dp.program.tables import Table
from dp.typing import Array


@dataclass(frozen=True, eq=False)
class Compiled:
    """The fast form: buffers, and the function that fills them.

    Attributes
    ----------
    source : str
        The function's text.
    run : callable
        Computes everything from the inputs and parameters that lie in their buffers; with False,
        not what only the function's value needs.
    arrays : dict
        Value -> its buffer, for inputs, outputs and what was to be kept.
    tables : tuple of Tables
        Where the inputs lie, to be filled by rows.
    parameters, gradients : arrays (n,)
        All of them in one vector each.
    views, gradient_views : dicts
        Name -> view of these, in the parameter's shape.
    state : array (1 + stores, n)
        The parameters, and an optimiser's stores.
    layout : Layout
        Where each parameter lies in such a vector.
    shares_parameters : bool
        Whether `parameters` is the vector of the program that this one was compiled beside.
    """

    source: str
    run: Callable[..., None]
    arrays: Mapping[Value, Array]
    tables: tuple[Table, ...]
    parameters: Array
    gradients: Array
    views: Mapping[str, Array]
    gradient_views: Mapping[str, Array]
    state: Array
    layout: Layout
    shares_parameters: bool


def compile_graph(
    captured: Captured,
    keep: Iterable[Value] = (),
    beside: Compiled | None = None,
    by_rows: bool = False,
    batches: bool = False,
    stores: int = 0,
    small_nets: bool = True,
) -> Compiled:
    """Compile a captured graph.

    Parameters
    ----------
    captured : Captured
    keep : iterable of Values
        Which of them, besides output and gradients, are wanted in `arrays`.
    beside : Compiled, optional
        Another program of the same parameters, whose vector this one reads instead of one of its
        own, if it lays them out alike.
    by_rows : bool
        Hold every parameter row by row, as models do, although columns may be quicker to compute
        with: where others read them in every step.
    batches : bool
        The inputs are batches of rows. What is computed from them alone is not computed by `run`,
        but put into `tables` with them (`Table.fill`).
    stores : int
        Vectors like that of the parameters that an optimiser needs, see `state`.
    small_nets : bool
        Do also what pays for small nets only.
    """
    layout = lay_out(captured, keep, None if beside is None else beside.layout, by_rows)
    lowered = lower(layout, batches, small_nets)
    merged = merge(layout, lowered) if small_nets else unmerged(lowered)
    shared = beside.parameters if beside is not None and layout.like(beside.layout) else None
    buffers = place(layout, lowered, merged, stores, batches, shared)
    emitted = emit(layout, lowered, merged.operations, buffers)
    return Compiled(
        emitted.source,
        emitted.run,
        buffers.arrays,
        buffers.tables,
        buffers.flat,
        buffers.flat_gradient,
        layout.views(buffers.flat),
        layout.views(buffers.flat_gradient),
        buffers.state,
        layout,
        buffers.shared,
    )
