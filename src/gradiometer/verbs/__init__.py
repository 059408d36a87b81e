"""The verbs, such as `run` and `plot`, as Python functions; the command line calls these."""

from gradiometer.verbs.claims import prove
from gradiometer.verbs.experiments import run
from gradiometer.verbs.exports import export
from gradiometer.verbs.figures import activations, plot
from gradiometer.verbs.output import OutputError
from gradiometer.verbs.predictions import predict
from gradiometer.verbs.studies import study

__all__ = ["OutputError", "activations", "export", "plot", "predict", "prove", "run", "study"]
