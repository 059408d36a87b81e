"""The same on a Dask cluster: a scheduler and two worker processes on this machine."""

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import pytest
from tests.gradiometer.processes import until
from tests.gradiometer.studies import deadly
from tests.gradiometer.studies.deadly import notes
from tests.gradiometer.studies.helpers import ROOT, assert_complete, small, undisturbed_study

from gradiometer.studies import (
    ExperimentFailed,
    ExperimentFinished,
    NoWorkersError,
    WorkerDied,
    executors,
)

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import distributed  # noqa: F401
else:
    pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
    # Dask's own threads and sockets, at the end of its client
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return undisturbed_study(tmp_path_factory.mktemp("undisturbed"))


@contextmanager
def started(*command, log):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "GRADIOMETER_TEST_LOG": str(log),
        "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def worker(address, log):
    own = log.parent / f"worker{len([*log.parent.iterdir()])}"
    own.mkdir()
    here = ["--host", "127.0.0.1", "--local-directory", str(own)]
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    return started("worker", address, *here, *options, log=log)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Address of a scheduler, and the processes of its two workers."""
    log = tmp_path / "log"
    monkeypatch.setenv(deadly.LOG, str(log))
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    with ExitStack() as stack:
        where = ["--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-jupyter"]
        stack.enter_context(started("scheduler", *where, log=log))
        workers = [stack.enter_context(worker(address, log=log)) for _ in range(2)]
        yield address, workers


def begun():
    return collections.Counter(name for word, name, _ in notes() if word == "begin")


def test_a_cluster_gives_the_same_numbers(cluster, tmp_path, undisturbed):
    address, _ = cluster
    study = small()
    events = [*study.events(tmp_path / "out", cluster=address, compute=deadly.slow)]
    assert len([e for e in events if isinstance(e, ExperimentFinished)]) == len(study.experiments)
    assert_complete(study, tmp_path / "out", undisturbed)
    assert len({pid for _, _, pid in notes()}) == 2
    assert set(begun().values()) == {1}


def test_a_dask_worker_killed_in_the_middle(cluster, tmp_path, undisturbed):
    address, workers = cluster
    study = small()
    pids = {worker.pid for worker in workers}
    lost = []

    def kill():
        until(lambda: len(notes()) >= 4)
        _, name, pid = [n for n in notes() if n[0] == "begin"][-1]
        assert pid in pids
        lost.append(name)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    events = [*study.events(tmp_path / "out", cluster=address, compute=deadly.slow)]
    thread.join()
    assert not [
        e for e in events if isinstance(e, (ExperimentFailed, WorkerDied))
    ]  # Dask tries again by itself
    # it may be killed just when it is done; what it had done already stays done
    again = {name for name, times in begun().items() if times > 1}
    assert len(again) <= 2
    assert set(lost) & again or not again
    assert_complete(study, tmp_path / "out", undisturbed)


def test_the_driver_of_a_cluster_leaves_and_resumes(cluster, tmp_path, undisturbed):
    address, _ = cluster
    study = small()
    events = study.events(tmp_path / "out", cluster=address, compute=deadly.slow)
    until(lambda: isinstance(next(events), ExperimentFinished))
    events.close()
    there = {path.stem for path in (tmp_path / "out" / "results").glob("*.nc")}
    assert there
    again = study.events(tmp_path / "out", resume=True, cluster=address, compute=deadly.slow)
    new = {e.experiment.hash for e in again if isinstance(e, ExperimentFinished) and e.new}
    assert new == {e.hash for e in study.experiments} - there
    assert not any(begun()[name] > 1 for name in there)
    assert_complete(study, tmp_path / "out", undisturbed)


def test_an_experiment_that_kills_every_dask_worker(cluster, tmp_path):
    address, _ = cluster
    study = small(layers=(3,), activation=("relu",))
    with ExitStack() as stack:
        for _ in range(3):  # more than it may kill
            stack.enter_context(worker(address, log=tmp_path / "log"))
        events = [*study.events(tmp_path / "out", cluster=address, compute=deadly.deadly)]
    [failed] = [e for e in events if isinstance(e, ExperimentFailed)]
    assert "the Dask worker process died" in failed.cause
    assert "failed after 4 tries" in failed.cause


def test_no_scheduler_there(monkeypatch):
    monkeypatch.setattr(executors, "CONNECTS_WITHIN", 1)
    with pytest.raises(NoWorkersError, match="no Dask scheduler answers there"):
        next(small().events(None, cluster=f"tcp://127.0.0.1:{free_port()}"))


def test_a_cluster_has_its_own_workers():
    with pytest.raises(ValueError, match="give either cluster or workers"):
        next(small().events(None, cluster="tcp://127.0.0.1:1", workers=2))
