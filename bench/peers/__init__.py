"""The peers: which there are, what each needs, and which workloads each can do.

A workload's name is mapped to the function that prepares it: `lesson(work) -> run`, where `run()`
trains anew and gives mean |dL/dW|, (steps, layers); `steps(work) -> Steps`, which is trained on and
on; `sweep(work) -> run` with a result for every cell, (seeds, steps, layers); and
`chain(size, dtype) -> run` with a gradient.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Skipped(Exception):  # noqa: N818 it is no error
    """A peer that cannot run here; says why."""


@dataclass(frozen=True)
class Peer:
    """One way to do a workload.

    Attributes
    ----------
    name, label : str
        On the command line, and in tables.
    module : str
        In this package; imported only in the peer's own process.
    does : mapping
        Kind of workload -> name of the function that prepares it.
    limit : frozenset of str
        Kinds of workload for which this is what ratios refer to: the limit, or dp.
    needs : str
        The distribution that must be installed.
    captures : bool
        The lesson's time is that of more steps in one training, without what a training does
        at its beginning.
    """

    name: str
    label: str
    module: str
    does: Mapping[str, str]
    limit: frozenset[str] = field(default=frozenset())
    needs: str = "numpy"
    captures: bool = False

    def missing(self) -> str:
        """Why the peer cannot run here, or nothing."""
        if importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        return ""

    def function(self, kind: str) -> Callable[..., Any]:
        """Import the peer, and give the function that prepares a kind of workload."""
        module = importlib.import_module(f"bench.peers.{self.module}")
        function: Callable[..., Any] = getattr(module, self.does[kind])
        return function


BOTH = {"lesson": "lesson", "steps": "steps"}
USUAL = {"lesson": "usual_lesson", "steps": "usual_steps"}
OF_LESSON, OF_STEPS, OF_SWEEP, OF_CHAIN = (
    frozenset([kind]) for kind in ("lesson", "steps", "sweep", "chain")
)  # what ratios refer to
_ALL = [
    Peer(
        "products",
        "matrix products alone",
        "numpy_products",
        {"steps": "products"},
        OF_STEPS,
    ),
    Peer(
        "products-t",
        "matrix products alone, feature-major",
        "numpy_products",
        {"steps": "products_feature_major"},
        OF_STEPS,
    ),
    Peer(
        "products-parts",
        "matrix products alone, in parts",
        "numpy_products",
        {"steps": "products_in_parts"},
    ),
    Peer(
        "numpy-exp",
        "NumPy by hand, best (exp)",
        "numpy_exp",
        {"lesson": "best_exp"},
        OF_LESSON,
    ),
    Peer(
        "numpy-tanh",
        "NumPy by hand, best (tanh)",
        "numpy_tanh",
        {"lesson": "best_tanh"},
        OF_LESSON,
    ),
    Peer("numpy", "NumPy by hand, best", "numpy_steps", {"steps": "steps"}),
    Peer(
        "numpy-stacked",
        "NumPy by hand, stacked by seed",
        "numpy_stacked",
        {"sweep": "stacked"},
        OF_SWEEP,
    ),
    Peer("numpy-simpler", "NumPy by hand, simpler", "numpy_simpler", {"lesson": "simpler"}),
    Peer("numpy-plain", "NumPy, plain", "numpy_plain", {"lesson": "plain", "steps": "plain_steps"}),
    Peer("dp", "dp", "dp_peers", {**BOTH, "sweep": "sweep", "chain": "chain"}, OF_CHAIN),
    Peer(
        "dp-compiled",
        "dp, compiled",
        "dp_peers",
        {
            "lesson": "compiled_lesson",
            "steps": "compiled_steps",
            "sweep": "compiled_sweep",
        },
        captures=True,
    ),
    Peer(
        "dp-recorded",
        "dp, compiled, gradients recorded",
        "dp_peers",
        {"steps": "recorded_steps"},
    ),
    Peer(
        "dp-capturing",
        "dp, compiled, capturing included",
        "dp_peers",
        {"lesson": "compiled_lesson"},
    ),
    Peer(
        "torch",
        "PyTorch, tuned",
        "torch_eager",
        {**BOTH, "sweep": "loop", "chain": "chain"},
        needs="torch",
    ),
    Peer(
        "torch-foreach",
        "PyTorch, modules, foreach optimiser",
        "torch_eager",
        {"lesson": "foreach_lesson", "steps": "foreach_steps"},
        needs="torch",
    ),
    Peer(
        "torch-fused",
        "PyTorch, modules, fused optimiser",
        "torch_eager",
        {"lesson": "fused_lesson", "steps": "fused_steps"},
        needs="torch",
    ),
    Peer(
        "torch-usual",
        "PyTorch, as usually written",
        "torch_eager",
        USUAL,
        needs="torch",
    ),
    Peer("torch-compile", "torch.compile", "torch_compile", BOTH, needs="torch"),
    Peer("torch-vmap", "torch.func.vmap", "torch_vmap", {"sweep": "sweep"}, needs="torch"),
    Peer("jax-step", "JAX, jit per step", "jax_peers", BOTH, needs="jax"),
    Peer(
        "jax-scan",
        "JAX, scan as usually written",
        "jax_peers",
        {"lesson": "scan", "sweep": "vmap_scan"},
        needs="jax",
    ),
    Peer("jax-tuned", "JAX, scan tuned by hand", "jax_peers", {"lesson": "tuned"}, needs="jax"),
    Peer(
        "autograd",
        "HIPS autograd",
        "autograd_peer",
        {**BOTH, "chain": "chain"},
        needs="autograd",
    ),
    Peer(
        "mygrad-unguarded",
        "MyGrad, memory guard off",
        "mygrad_peer",
        {**BOTH, "chain": "chain"},
        needs="mygrad",
    ),
    Peer(
        "mygrad",
        "MyGrad",
        "mygrad_peer",
        {"lesson": "guarded_lesson", "steps": "guarded_steps", "chain": "guarded_chain"},
        needs="mygrad",
    ),
]

PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}


def chosen(kind: str, names: list[str] | None) -> list[Peer]:
    """Peers that do a kind of workload; the limit is always among them.

    Raises
    ------
    ValueError
        If there is no peer of a name, naming those there are.
    """
    for name in names or ():
        if name not in PEERS:
            raise ValueError(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    return [
        peer
        for peer in PEERS.values()
        if kind in peer.does and (names is None or peer.name in names or kind in peer.limit)
    ]


def versions() -> str:
    """Of everything installed that is compared here."""
    import importlib.metadata  # slow, and a cold start has no use for it

    found = []
    for name in dict.fromkeys(["numpy", *(peer.needs for peer in PEERS.values())]):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
