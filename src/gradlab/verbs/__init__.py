"""The verbs, such as `run` and `plot`, as Python functions; the command line calls these."""

from gradlab.verbs.claims import prove
from gradlab.verbs.experiments import run
from gradlab.verbs.exports import export
from gradlab.verbs.figures import activations, plot
from gradlab.verbs.output import OutputError
from gradlab.verbs.predictions import predict
from gradlab.verbs.studies import study

__all__ = ["OutputError", "activations", "export", "plot", "predict", "prove", "run", "study"]
