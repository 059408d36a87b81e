"""What is changed for a while, and then is as it was."""

import contextlib
import random

import numpy as np

from gradiometer.recording.restore import replace, same_streams


class Owner:
    kind = "class"

    def __init__(self):
        self.mine = 1

    def __setattr__(self, name, value):
        assert name == "mine"
        super().__setattr__(name, value)


def test_attributes_come_back():
    owner = Owner()
    with contextlib.ExitStack() as undo:
        replace(owner, "mine", 2, undo)
        replace(owner, "kind", "instance", undo)
        replace(owner, "mine", 3, undo)
        assert (owner.mine, owner.kind) == (3, "instance")
    assert vars(owner) == {"mine": 1}
    assert owner.kind == "class"


def test_random_streams_come_back():
    random.seed(0)
    np.random.seed(0)
    with same_streams():
        drawn = random.random(), np.random.rand()
    assert drawn == (random.random(), np.random.rand())
