"""Cases of PyTorch nets: each group's faults with their twins, and its healthy controls."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.corpus.cases import Case
from bench.corpus.torch_nets.controls import CONTROLS
from bench.corpus.torch_nets.faults import FAULTS, Fault
from bench.corpus.torch_nets.groups import COMMON_CONTROLS, COMMON_FAULTS, GROUPS, SCARCE, Group
from bench.corpus.torch_nets.nets import layers_of, task_of
from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.symptoms import Symptom, shown
from bench.corpus.torch_nets.training import train

# of the faults and controls that any net may have, each group gets every third, or every second
SHARE_OF_FAULTS, SHARE_OF_CONTROLS = 3, 2
FOLDER = Path(__file__).parents[3] / "build" / "corpus"


def cases() -> list[Case]:
    """Every failing net, its twin, and the controls."""
    found: list[Case] = []
    for number, (name, group) in enumerate(GROUPS.items()):
        found += _of_faults(name, group, number)
        found += _of_controls(name, group, number)
    return found


def several_kinds() -> list[str]:
    """Names of the failing nets whose kind is measured."""
    return [
        f"{_slug(name)}-{key}"
        for name, group in GROUPS.items()
        for key in group.faults
        if FAULTS[key].shows
    ]


def _of_faults(name: str, group: Group, number: int) -> Iterator[Case]:
    for key in _share(group.faults, COMMON_FAULTS, number, SHARE_OF_FAULTS):
        fault = FAULTS[key]
        own = f"{_slug(name)}-{key}"
        twin = f"{own}-repaired"
        healthy = _varied(group.plan, fault, _seed(own)).but(**fault.beside)
        failing = healthy.but(**fault.wrong)
        seen = shown().get(own, Symptom())
        kind = fault.kind_as(seen.kind)
        yield _case(name, group, twin, healthy)
        yield Case(
            name=own,
            group=f"{name} (PyTorch)",
            part=group.part,
            kind=kind,
            make=partial(train, **failing.settings()),
            accept=task_of(failing).accept,
            cause=fault.cause_as(kind),
            layers=_layers(failing, fault, seen),
            twin=twin,
        )


def _layers(failing: Plan, fault: Fault, seen: Symptom) -> tuple[str, ...]:
    """Those that show it, if it is dead or saturated units that do; else as the fault has it."""
    if seen.kind in fault.shows and seen.layers:
        return seen.layers
    return layers_of(failing)[fault.where] if fault.where else ()


def _of_controls(name: str, group: Group, number: int) -> Iterator[Case]:
    for key in _share(group.controls, COMMON_CONTROLS, number, SHARE_OF_CONTROLS):
        control = CONTROLS[key]
        own = f"{_slug(name)}-healthy-{key}"
        plan = group.plan.but(seed=_seed(own)).but(**control.unusual)
        yield _case(name, group, own, plan, control.trap)


def _share(keys: tuple[str, ...], common: tuple[str, ...], number: int, share: int) -> list[str]:
    """Those that few nets may have, and some of the common ones, others in each group."""
    parts = {key: (0, 1) if key in SCARCE else (0,) for key in common}
    return [
        key
        for key in keys
        if key not in common or (common.index(key) + number) % share in parts[key]
    ]


def _seed(name: str) -> int:
    """One that stays when other nets are added."""
    return zlib.crc32(name.encode()) % 10_000


def _case(name: str, group: Group, own: str, plan: Plan, trap: str = "") -> Case:
    return Case(
        name=own,
        group=f"{name} (PyTorch)",
        part=group.part,
        kind="healthy",
        make=partial(train, **plan.settings()),
        accept=task_of(plan).accept,
        trap=trap,
    )


def _varied(plan: Plan, fault: Fault, seed: int) -> Plan:
    """Another seed; every second net is wider, every third deeper, where the fault has no depth."""
    plan = plan.but(seed=seed)
    if seed % 2:
        plan = plan.but(width=plan.width + plan.width // 2)
    if (
        seed % 3 == 0
        and "depth" not in fault.beside
        and plan.net in ("mlp", "conv", "preactivation")
    ):
        plan = plan.but(depth=plan.depth + 1)
    return plan


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", f"torch {name}".lower())
