"""Doctests of modules named after a framework are not collected without it."""

from importlib.util import find_spec

collect_ignore_glob = [
    f"src/gradlab*/{framework}*"
    for framework in ("torch", "lightning", "jax")
    if find_spec(framework) is None
]
