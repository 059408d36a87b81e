"""Write down how faults show, as the traces in build/corpus have it.

Run `python -m bench.corpus.torch_nets` after `python -m bench.corpus`.
"""

from __future__ import annotations

import json

from bench.corpus.torch_nets.symptoms import SHOWN, shown, symptom
from bench.corpus.torch_nets.table import FOLDER, several_kinds
from gradiometer.trace import Trace


def main() -> None:
    """Add what is known of the traces that are there."""
    found = {name: [seen.kind, *seen.layers] for name, seen in shown().items()}
    for name in several_kinds():
        path = FOLDER / f"{name}.nc"
        if path.exists():
            seen = symptom(Trace.load(path))
            found[name] = [seen.kind, *seen.layers]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    SHOWN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{len(found)} nets in {SHOWN.name}")


if __name__ == "__main__":
    main()
