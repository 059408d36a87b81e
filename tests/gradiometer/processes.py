"""Other processes: waiting for them, ending them, and an executor that needs none."""

import contextlib
import time
from concurrent.futures import Future


@contextlib.contextmanager
def ended(process):
    """A process that does not outlive the block, also where the test fails before its end."""
    try:
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
    finally:
        process.kill()


def until(condition, seconds=60):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


class AtOnce:
    """An executor that has done everything as soon as it is asked."""

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future
