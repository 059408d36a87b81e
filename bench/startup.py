"""Whole processes, from start to end, in turns: what a user waits for.

`import dp` against `import numpy`; a script that trains the lesson's net against one that only
imports NumPy; `gradiometer --help`; and `gradiometer run`, up to the first letter it shows.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 11
TRAIN = """
import numpy as np, dp
rng = np.random.default_rng(0)
y = np.repeat([[0.0], [1.0]], 50, axis=0)
x = rng.normal(size=(100, 4)) + 2 * y
net = dp.Net(4, 10, 10, "sigmoid", seed=0)
dp.SGD(net, x, y, seed=0).train(100, print_each=None)
"""
GRADIOMETER = [sys.executable, "-c", "from gradiometer.cli import main; main()"]
PROCESSES = {
    "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
    "python -c 'import dp'": [sys.executable, "-c", "import dp"],
    "a script that trains the lesson's net with dp": [sys.executable, "-c", TRAIN],
    "gradiometer --help": [*GRADIOMETER, "--help"],
}
BASE = "python -c 'import numpy'"
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def whole(command: list[str]) -> float:
    """Seconds from start to end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def inside(module: str) -> float:
    """Seconds of an import, measured inside a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(module)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def first_letter(folder: str) -> float:
    """Seconds until `gradiometer run` shows its progress bar; the run is then ended."""
    began = time.perf_counter()
    with subprocess.Popen(
        [*GRADIOMETER, "run", "--out", os.path.join(folder, "run"), "--overwrite"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "FORCE_COLOR": "1"},  # a bar is drawn at once only on a terminal
    ) as process:
        assert process.stderr is not None
        process.stderr.read(1)
        waited = time.perf_counter() - began
        process.terminate()
    return waited


def main(rounds: int = ROUNDS) -> None:
    """Print two Markdown tables."""
    times: dict[str, list[float]] = {name: [] for name in PROCESSES}
    progress: list[float] = []
    imports: dict[str, list[float]] = {"numpy": [], "dp": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, command in PROCESSES.items():
                times[name].append(whole(command))
            progress.append(first_letter(folder))
            for module, seconds in imports.items():
                seconds.append(inside(module))
    times["gradiometer run, until its first progress"] = progress
    base = statistics.median(times[BASE])
    print("| process | median s | × importing NumPy |")
    print("|---|---|---|")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"| `{name}` | {middle:.3f} | {middle / base:.2f} |")
    numpy, dp = (statistics.median(imports[module]) for module in ("numpy", "dp"))
    print(f"\nImport alone: numpy {numpy:.3f} s, dp {dp:.3f} s, ratio {dp / numpy:.2f}.")


if __name__ == "__main__":
    main()
