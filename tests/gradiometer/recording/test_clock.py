"""Time that is spent on recording is counted once."""

from gradiometer.recording.clock import Clock


def test_time_is_counted_once_where_blocks_are_nested(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("gradiometer.recording.clock.perf_counter", lambda: float(next(now)))
    clock = Clock()
    clock.since(-5.0)
    assert clock.seconds == 5  # at 0
    with clock:  # from 1
        clock.since(-100.0)  # within: the block counts it
        with clock:
            pass
    assert clock.seconds == 6  # to 2
