"""Which layers are one chain, and so may be compared."""

import pytest

from gradiometer.recording.chains import chains_of, layers_above, layers_before


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


@pytest.mark.parametrize(
    ("edges", "groups", "above"),
    [
        ({0: [], 1: [0], 2: [1, 0]}, "aaa", {0: 1, 1: 2}),  # a skip
        ({0: [], 1: [0], 2: [0], 3: [1, 2]}, "aaaa", {0: 1, 1: 3, 2: 3}),  # branches
        ({0: [], 1: [0], 2: [0]}, "aaa", {0: 1}),  # two heads
        ({0: [], 1: [0], 2: [1], 3: [2]}, "abba", {0: 3, 1: 2}),
        ({0: [], 1: []}, "aa", {}),
    ],
)
def test_the_layer_above_each(edges, groups, above):
    before = layers_before({i: [i] for i in edges}, edges, edges.__getitem__)
    assert layers_above(before, dict(enumerate(groups))) == above


def test_a_layer_called_twice_is_above_and_below():
    # 0, then 1, 2 and 1 again, then 3
    marked = {node: [layer] for node, layer in enumerate([0, 1, 2, 1, 3])}
    before = layers_before(marked, range(5), lambda node: [node - 1] if node else [])
    assert layers_above(before, dict.fromkeys(range(4), 0)) == {0: 1, 1: 2, 2: 3}
