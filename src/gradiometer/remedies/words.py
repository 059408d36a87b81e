"""What came of trying remedies, in a few sentences."""

from __future__ import annotations

from dataclasses import replace

from gradiometer.remedies.results import Remedies, number

HEALTHY = "Nothing to mend: the net learns."
WHY_ENDED = {"time": "the time was over", "interrupted": "the trials were interrupted"}


def in_words(remedies: Remedies) -> Remedies:
    """The same, with its sentence."""
    return replace(remedies, sentence=sentence_of(remedies))


def sentence_of(remedies: Remedies) -> str:
    """What was tried, what it reached beside doing nothing and a random remedy, what to do."""
    if remedies.tried:
        parts = [_found(remedies)]
    elif remedies.healthy:
        return HEALTHY
    else:
        parts = [_untried(remedies)]
    if remedies.ended and remedies.unchanged:
        count = len(remedies.tried)
        left = sum(row.why == WHY_ENDED[remedies.ended] for row in remedies.not_tried)
        why = WHY_ENDED[remedies.ended].capitalize()
        parts.append(f"{why} after {count} of {count + left} remedies.")
    return " ".join(part for part in parts if part)


def _found(remedies: Remedies) -> str:
    seeds = len(remedies.seeds)
    same = "the same seed" if seeds == 1 else f"the same {seeds} seeds"
    best = remedies.recommended or remedies.tried[0]
    reached = (
        f"{best.words} reaches {remedies.outcome} {number(best.mean, remedies.outcome)} "
        f"(unchanged: {_mean(remedies)}; a random remedy: {_random(remedies)})"
    )
    if best.works:
        return f"Tried on {same}: {reached}. Do that first."
    count = len(remedies.tried)
    if count == 1:
        return f"Tried on {same}: {reached}. There is no other remedy to compare it with."
    return (
        f"{count} remedies were tried on {same}, and none beats both changing nothing and a random "
        f"remedy. Best is this: {reached}."
    )


def _untried(remedies: Remedies) -> str:
    reasons = {row.why for row in remedies.not_tried}
    if remedies.ended:
        reasons = {WHY_ENDED[remedies.ended]}
    if len(reasons) == 1:
        why = f", because {reasons.pop()}"
    else:
        why = ": each remedy has a reason of its own" if reasons else ""
    return f"Nothing was tried{why}. {remedies.advice}".strip()


def _mean(remedies: Remedies) -> str:
    return number(sum(remedies.unchanged) / len(remedies.unchanged), remedies.outcome)


def _random(remedies: Remedies) -> str:
    mean, std = (number(value, remedies.outcome) for value in remedies.random)
    return f"{mean} ± {std}"
