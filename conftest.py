"""What all tests have in common."""

import signal
from importlib.util import find_spec

# A shell that runs the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# doctests of modules named after a framework are not collected without it
collect_ignore_glob = [
    f"src/gradiometer*/{framework}*"
    for framework in ("torch", "lightning", "jax")
    if find_spec(framework) is None
]
