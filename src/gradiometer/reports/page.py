"""The frame of a report: a template rendered, with the words and pictures it needs."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **content: Any) -> str:
    """Fill a template of `gradiometer/reports/templates`; its values are escaped.

    Templates extend `page.html`, whose blocks are `title`, `content` and `footer`. They have these
    filters: `number` (four digits), `usual`, `effect` and `p` (see `…_in_words` below), `begin`
    (with a capital), `picture` (of a figure, the address that an `img` needs), and `visible` (of a
    name, what a reader can see of it: no control characters, nothing that turns the order of
    letters).
    """
    return _environment().get_template(template).render(**content)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from gradiometer.plots.words import printable
    from gradiometer.reports.pictures import picture

    environment = Environment(
        loader=PackageLoader("gradiometer.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number_in_words,
        "effect": effect_in_words,
        "p": p_in_words,
        "picture": picture,
        "begin": with_capital,
        "usual": usual_in_words,
        "visible": printable,
    }
    return environment


def number_in_words(value: float, digits: int = 4) -> str:
    """A number with so many digits; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}g}"


def with_capital(text: str) -> str:
    """A text that begins with a capital; the rest stays, such as |dL/dW|."""
    return text[:1].upper() + text[1:]


def usual_in_words(low: float, high: float) -> str:
    """Between which two numbers something usually is; "" if there is no end."""
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


def effect_in_words(
    effect: float, low: float, high: float, unit: str, no_interval: str = ""
) -> str:
    """Such as 0.512 [0.507, 0.516] decades per layer; where there is none, why it is missing."""
    if math.isnan(low):
        interval = f" [no interval: {no_interval}]" if no_interval else ""
    else:
        interval = f" [{low:.3g}, {high:.3g}]"
    return f"{number_in_words(effect, 3)}{interval} {unit}".strip()


def p_in_words(p: float | None) -> str:
    """A p-value with two digits, "< 0.0001" below that, "exact" where there was no test."""
    if p is None:
        return "exact"
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.2g}" if p < 0.995 else "1"
