"""Nets of PyTorch of the corpus are made and trained again as they were."""

import os

import numpy as np
import pytest

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch  # noqa: F401
else:
    pytest.importorskip("torch")

from bench.corpus.remedies import failing
from bench.corpus.remedies_torch import Training

pytestmark = pytest.mark.frameworks


def test_a_net_reaches_what_it_reached():
    case = min(
        failing("torch"),
        key=lambda case: (case.make.keywords["net"] != "mlp", case.make.keywords.get("steps", 60)),
    )
    training = Training(case)
    model, optimizer = training.make_model(case.make.keywords.get("seed", 0))
    (reached,) = training.train(model, optimizer).values()
    assert np.array_equal(reached, case.make().outcome, equal_nan=True)
