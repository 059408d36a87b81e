"""The table of docs/testing.md tells how many tests there are.

Run as a script, this writes the numbers anew.
"""

import collections
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "testing.md"
ROW = re.compile(r"^\| (.*) \| ([\d,]+) \| `(tests/\S+)` \|$", re.MULTILINE)


def collected(files):
    """How many tests pytest finds in each file."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    names = (line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line)
    return collections.Counter(names)


@pytest.mark.long
@pytest.mark.skipif(
    os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") != "1",
    reason="tests of frameworks are collected only where these are installed",
)
def test_the_page_counts_the_tests():
    told = {file: int(count.replace(",", "")) for _, count, file in ROW.findall(PAGE.read_text())}
    assert len(told) > 20
    assert told == collected(told)


def write_anew():
    text = PAGE.read_text()
    counts = collected([file for *_, file in ROW.findall(text)])
    PAGE.write_text(ROW.sub(lambda m: f"| {m[1]} | {counts[m[3]]:,} | `{m[3]}` |", text))


if __name__ == "__main__":
    write_anew()
