"""Doctests of adapters whose framework is not installed are not collected."""

from importlib.util import find_spec

ADAPTERS = {
    "torch": ["src/gradlab/recording/torch"],
    "lightning": ["src/gradlab/recording/lightning.py"],
    "jax": ["src/gradlab/recording/jax.py", "src/gradlab/recording/jax", "src/gradlab/jax.py"],
}

collect_ignore = [
    path for framework, paths in ADAPTERS.items() if find_spec(framework) is None for path in paths
]
