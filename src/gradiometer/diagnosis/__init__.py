"""What is wrong with a net, in which layer, and why.

The modules::

    verdict.py   what a diagnosis says, as values
    causes.py    the kinds and the causes
    reading.py   one net of a run, as plain arrays
    signs.py     numbers read off it
    rules.toml   which signs speak for which verdict, with thresholds; read by rules.py
    diagnose.py  from a run to its diagnosis
    words.py     a verdict in a sentence
"""

from gradiometer.diagnosis.causes import CAUSES, Cause, Kind
from gradiometer.diagnosis.diagnose import diagnose
from gradiometer.diagnosis.verdict import Confidence, Diagnosis, Evidence, NotJudged, Verdict

__all__ = [
    "CAUSES",
    "Cause",
    "Confidence",
    "Diagnosis",
    "Evidence",
    "Kind",
    "NotJudged",
    "Verdict",
    "diagnose",
]
