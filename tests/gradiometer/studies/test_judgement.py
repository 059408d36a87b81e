"""What a study says is a value, and a sentence made from it."""

import numpy as np
import pandas as pd

from gradiometer.studies.judgement import StudyJudgement, in_words, judge
from gradiometer.summary import Nets


def test_the_sentence_counts():
    summary = pd.DataFrame(
        {
            "accuracy": [1.0, 0.5, 0.95, 0.5],
            "delta_decades": [0.1, 5.0, 3.0, -4.0],
            "diverged": [0.0, 0.0, 0.0, 0.5],
            "nets": [10] * 4,
        }
    )
    found = judge(summary)
    assert found == StudyJudgement(4, 2, 2, 1, 1, Nets(5, 40))
    assert in_words(found) == (
        "2 of 4 experiments learn (median accuracy 0.9 or more); the gradient does not reach the "
        "first layer in 2 and explodes in 1; of those where it does not reach it, 1 learns; 5 of "
        "40 nets diverged."
    )


def test_what_was_not_recorded_is_not_told():
    summary = pd.DataFrame({"gradient_decades": [4.0, np.nan, np.inf], "nets": [1, 1, 1]})
    found = judge(summary)
    assert (found.learn, found.vanishing, found.exploding, found.diverged) == (None, 2, 0, None)
    assert in_words(found) == "The gradient does not reach the first layer in 2."
