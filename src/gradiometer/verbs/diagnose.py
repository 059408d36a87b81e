"""`diagnose`: what a net suffers from, in which layer, and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradiometer.verbs.output import loaded

if TYPE_CHECKING:
    from gradiometer.diagnosis import Diagnosis
    from gradiometer.trace import Trace


def diagnose(trace: Trace | str | os.PathLike[str]) -> Diagnosis:
    """Say what is wrong with a net, in which layer, and why.

    Parameters
    ----------
    trace : Trace, or path of a saved one, or of its folder
        Of any framework, with whatever was recorded. What could not be judged is in `not_judged`,
        with the quantities to record for it.

    Returns
    -------
    Diagnosis
        Its `verdicts`, the most important first, are never empty.

    Raises
    ------
    TypeError
        If it is neither a Trace nor a path.
    TraceError
        If the file is not a trace.

    Examples
    --------
    >>> import gradiometer
    >>> trace = gradiometer.run(layers=10, activation="sigmoid", steps=20)
    >>> verdict = gradiometer.diagnose(trace).verdict
    >>> verdict.kind, verdict.cause
    (<Kind.VANISHING: 'vanishing'>, 'activation slope')
    """
    from gradiometer.trace import Trace

    if isinstance(trace, str | os.PathLike):
        return loaded(trace).diagnose()
    if not isinstance(trace, Trace):
        raise TypeError(
            f"a Trace, or the path of a saved one, is diagnosed, got {type(trace).__name__}"
        )
    return trace.diagnose()
