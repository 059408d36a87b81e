"""Which layers are one chain, and so may be compared."""

import pytest

from gradiometer.recording.chains import chains_of, layers_before


@pytest.mark.parametrize(
    ("edges", "groups", "chains"),
    [
        ({0: [], 1: [0], 2: [1]}, "aaa", [[0, 1, 2]]),
        ({0: [], 1: [0], 2: [1, 0]}, "aaa", [[0, 1, 2]]),
        ({0: [], 1: [0], 2: [0], 3: [1, 2]}, "aaaa", [[0, 1, 2, 3]]),
        ({0: [], 1: [], 2: [0, 1]}, "aaa", [[0, 2], [1, 2]]),
        ({0: [], 1: [0], 2: [0]}, "aaa", [[0, 1], [0, 2]]),
        ({0: [], 1: [0], 2: [1]}, "aab", [[0, 1], [2]]),
        ({0: [], 1: [0], 2: [1], 3: [2]}, "abba", [[0, 3], [1, 2]]),
        ({0: [], 1: []}, "aa", [[0], [1]]),
    ],
)
def test_chains_of_a_graph(edges, groups, chains):
    """Edges are from each layer to those right before it; groups are one letter for each layer."""
    before = layers_before({i: [i] for i in edges}, edges, edges.__getitem__)
    assert sorted(chains_of(before, dict(enumerate(groups)))) == sorted(chains)
