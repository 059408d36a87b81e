"""Multilayer perceptrons of dp: sound nets, and the same nets with one fault each.

`mlp_nets` lists the sound nets, each with the faults that it is given; `mlp_faults` says what a
fault changes. The twin of a failing net is the sound net with the failing one's seed.

Where a fault may show in several ways (a high learning rate, large weights or inputs), the kind
stands beside it in the list. It is what the run ends in, in this order: "non-finite" if something
was not finite; "dead" if 95 % of the units of a hidden layer are dead at the last step; "saturated"
if 80 % of the values of a hidden layer are, and its activation function is bounded; otherwise
"exploding" if weights were drawn too large, and "stalled" in other cases. Nets in between, with
half of a layer dead or saturated, are not in the list. Large weights count as exploding also where
units die of them.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

from bench.corpus.cases import Case, Kind
from bench.corpus.mlp_faults import FAULTS, SOUND, TRAPS, right_layers
from bench.corpus.mlp_nets import NETS, Net
from bench.corpus.mlp_training import train

# outcomes from which on a net counts as learning, by data set
ACCEPT = {
    "iris2": 0.95, "iris": 0.9, "moons": 0.93, "circles": 0.9, "digits": 0.85, "wine": 0.93,
    "breast_cancer": 0.93, "waves": 0.75, "hills": 0.75,
}  # fmt: skip


def cases() -> list[Case]:
    """All nets: the failing ones, their twins, and sound ones that naive rules flag."""
    found: list[Case] = []
    for net in NETS:
        for told in net.faults.split():
            fault, _, kind = told.partition(":")
            found += _pair(net, fault, kind)
        for told in net.sound.split():
            change, _, trap = told.partition(":")
            found.append(_sound(net, change, trap))
    return found


def _pair(net: Net, slug: str, kind: str) -> tuple[Case, Case]:
    """A failing net and its twin."""
    fault = FAULTS[slug]
    right: Any = kind or next(iter(fault.causes))
    name = f"{net.slug}-{slug}"
    sound = {**net.settings, **fault.before(net.settings), "seed": _seed(name)}
    failing = {**sound, **fault.changes(net.settings)}
    group = net.group(failing["activation"])
    twin = _case(net, f"{name}-mended", group, "healthy", sound)
    return _case(
        net,
        name,
        group,
        right,
        failing,
        cause=fault.causes[right],
        layers=right_layers(fault, net.settings),
        twin=twin.name,
    ), twin


def _sound(net: Net, slug: str, trap: str) -> Case:
    """A net that learns, whatever naive rules say of it."""
    changes = SOUND[slug] if slug in SOUND else FAULTS[slug].changes
    name = f"{net.slug}-{slug}-learns"
    settings = {**net.settings, **changes(net.settings), "seed": _seed(name)}
    group = net.group(settings["activation"])
    return _case(net, name, group, "healthy", settings, trap=TRAPS[trap])


def _case(net: Net, name: str, group: str, kind: Kind, settings: Any, **more: Any) -> Case:
    make = partial(train, **settings)
    return Case(name, group, net.part, kind, make, ACCEPT[net.data], **more)


def _seed(name: str) -> int:
    """A seed of its own for each net, which stays when others come or go."""
    return zlib.crc32(name.encode()) % 100_000
