"""What recording a PyTorch model costs: steps with and without it, in turns.

Two models: ten layers of 256 units, batch 128, and a small convolutional net. Next to gradiometer
stand what people write themselves: a loop that fetches numbers layer by layer with `.item()`, the
same with hooks for activations and deltas, and `torch._foreach_norm`, the L2 norms of the gradients
and nothing else.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROUNDS = 25
STEPS = 20  # in a turn, a multiple of ten
WARM = 3  # steps of a turn that are not counted

Model = tuple["torch.nn.Module", "torch.Tensor", "torch.Tensor"]


class Training:
    """A model that is trained on one batch; `after` looks at its gradients before the update."""

    def __init__(self, make: Callable[[], Model]) -> None:
        import torch

        torch.manual_seed(0)
        self.net, self.x, self.y = make()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3)
        self.loss = torch.nn.functional.cross_entropy
        self.after: Callable[[], None] = lambda: None

    def step(self) -> None:
        """One step, as it is usually written."""
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        self.after()
        self.optimizer.step()

    @property
    def weights(self) -> list[torch.Tensor]:
        """All but the biases."""
        return [p for p in self.net.parameters() if p.ndim > 1]


# --- models ---------------------------------------------------------------------------------------


def layers() -> Model:
    """Ten layers of 256, relu."""
    import torch
    from torch import nn

    hidden = [module for _ in range(10) for module in (nn.Linear(256, 256), nn.ReLU())]
    net = nn.Sequential(*hidden, nn.Linear(256, 10))
    return net, torch.randn(128, 256), torch.randint(0, 10, (128,))


def convolutions() -> Model:
    """Three convolutions with normalisation, and a linear layer, on 32 × 32 pixels."""
    import torch
    from torch import nn

    blocks: list[nn.Module] = []
    for into, out in ((3, 16), (16, 32), (32, 64)):
        blocks += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        blocks.append(nn.MaxPool2d(2))
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 16, 10))
    return net, torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))


MODELS = {"10 × 256, batch 128": layers, "convolutions, batch 32": convolutions}

# --- ways to record -------------------------------------------------------------------------------

Way = Callable[[Training], AbstractContextManager[Any]]


def nothing(_: Training) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def gradiometer(**settings: Any) -> Way:
    """The recorder, with these settings."""

    def record(training: Training) -> AbstractContextManager[Any]:
        from gradiometer import record

        return record(training.net, training.optimizer, **settings)

    return record


@contextlib.contextmanager
def item_by_item(training: Training) -> Iterator[None]:
    """Mean size, norm and share of zeros of each gradient, fetched one by one."""
    kept: list[tuple[float, float, float]] = []

    def look() -> None:
        for weight in training.weights:
            gradient = weight.grad
            assert gradient is not None
            kept.append(
                (
                    gradient.abs().mean().item(),
                    gradient.norm().item(),
                    (gradient == 0).float().mean().item(),
                )
            )

    training.after = look
    yield
    training.after = lambda: None


@contextlib.contextmanager
def hooks(training: Training) -> Iterator[None]:
    """The same, and of every module's output the mean, spread, share of zeros, and the delta."""
    kept: list[float] = []

    def forward(_module: Any, _args: Any, output: Any) -> None:
        seen = output.detach()
        kept.extend((seen.mean().item(), seen.std().item(), (seen == 0).float().mean().item()))

    def backward(_module: Any, _into: Any, out: Any) -> None:
        kept.append(out[0].norm().item())

    handles = []
    training.x.requires_grad_()  # or the first module's backward hook warns
    for module in training.net:
        handles.append(module.register_forward_hook(forward))
        handles.append(module.register_full_backward_hook(backward))
    with item_by_item(training):
        yield
    for handle in handles:
        handle.remove()


@contextlib.contextmanager
def foreach_norm(training: Training) -> Iterator[None]:
    """The norms of all gradients in one call, fetched at once."""
    import torch

    kept: list[list[float]] = []

    def look() -> None:
        norms = torch._foreach_norm([weight.grad for weight in training.weights])
        kept.append(torch.stack(norms).tolist())

    training.after = look
    yield
    training.after = lambda: None


GRADIENTS_AND_DELTAS = ("grad_mean_abs", "grad_rms", "grad_zero_fraction", "delta_rms")
WAYS: dict[str, Way] = {
    "no recording": nothing,
    "gradiometer, all quantities": gradiometer(),
    "gradiometer, gradients and deltas": gradiometer(quantities=GRADIENTS_AND_DELTAS),
    "gradiometer, all, every 10th step": gradiometer(every=10),
    "gradiometer, all, max_overhead=0.05": gradiometer(max_overhead=0.05),
    "`torch._foreach_norm`, L2 alone": foreach_norm,
    "gradients, `.item()` per layer": item_by_item,
    "hooks, `.item()` per module": hooks,
}


def turn(training: Training, way: Way) -> tuple[float, float]:
    """Seconds per step, and the share of it that the recorder itself says it took."""
    with way(training) as recorder:
        for _ in range(WARM if not getattr(recorder, "every", 1) > 1 else 10):
            training.step()
        began = time.perf_counter()
        for _ in range(STEPS):
            training.step()
        took = (time.perf_counter() - began) / STEPS
    return took, getattr(recorder, "overhead", float("nan"))


def main(rounds: int = ROUNDS, threads: int = 1) -> None:
    """Print a Markdown table for each model."""
    import torch

    torch.set_num_threads(threads)
    for title, make in MODELS.items():
        trainings = {name: Training(make) for name in WAYS}
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        own: dict[str, list[float]] = {name: [] for name in WAYS}
        names = list(WAYS)
        for number in range(rounds + 1):
            for name in names if number % 2 else names[::-1]:
                took, share = turn(trainings[name], WAYS[name])
                if number:  # the first turn loads and compiles
                    times[name].append(took)
                    own[name].append(share)
        print(f"## recording, {title}, {threads} thread(s)\n")
        print("| | median, ms per step | added | the recorder's own figure |")
        print("|---|---|---|---|")
        for name in WAYS:
            ratio = statistics.median(
                took / plain for took, plain in zip(times[name], times[names[0]], strict=True)
            )
            share = statistics.median(own[name])
            said = "" if share != share else f"{100 * share:.0f} %"
            added = "" if name == names[0] else f"{100 * (ratio - 1):+.0f} %"
            print(f"| {name} | {1e3 * statistics.median(times[name]):.2f} | {added} | {said} |")
        print(f"\nPyTorch {torch.__version__}, median of {rounds} rounds of {STEPS} steps.\n")


if __name__ == "__main__":
    main()
