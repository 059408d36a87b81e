"""Studies of thousands of experiments: only the folder grows, not the memory."""

import gc
import io

import h5py
import numpy as np
import psutil
import pytest
from tests.gradiometer.processes import AtOnce

from gradiometer.studies import Study
from gradiometer.studies.execution import ExperimentFinished
from gradiometer.studies.folder import StudyFolder

COUNT = 1500


def content(settings, expected, at_once):
    """Stands for a trace: 100 kB of numbers under the right name."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs["experiment_hash"] = expected
        file["numbers"] = np.zeros(12_500)
    return memory.getvalue()


@pytest.fixture(scope="module")
def study():
    return Study(over={"seed": range(COUNT)})


def test_memory_stays_flat(study, tmp_path):
    """All results are 150 MB; the driver keeps none of them."""
    used = []
    events = study.events(tmp_path, executor=AtOnce(), compute=content)
    done = 0
    for event in events:
        if isinstance(event, ExperimentFinished):
            done += 1
            if done in (150, COUNT):
                del event
                gc.collect()
                used.append(psutil.Process().memory_info().rss)
    assert done == COUNT
    assert used[1] - used[0] < 40e6

    # the folder can be looked at
    assert len([*tmp_path.iterdir()]) <= 4
    folder = StudyFolder(tmp_path)
    assert len(folder.files()) == COUNT
    assert not [*folder.locks.iterdir()]
    done = [e for e in study.experiments if folder.is_done(e)]
    index = folder.write_index(study, done).read_text().splitlines()
    assert index[0] == "hash,state,seed"
    assert len(index) == COUNT + 1
    assert index[1321].endswith(",finished,1320")

    # and be resumed: nothing is computed
    again = study.events(tmp_path, executor=AtOnce(), compute=None, resume=True)
    assert not any(event.new for event in again)
