import pytest

from gradiometer.claims import prove


@pytest.fixture(scope="package")
def proofs():
    """All claims and all papers, in the quick mode: real experiments, of ten seeds."""
    return prove(seeds=10), prove(papers=True)
