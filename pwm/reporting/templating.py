"""Pages from the templates in ``templates/``: HTML with escaped values, Markdown as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pwm.core.counted import counted
from pwm.evaluation.statistics import Interval


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """The page that a template gives, in UTF-8.

    Args:
        template: its file's name, ``NAME.html.j2`` or ``NAME.md.j2``.
        context: values by the names that the template uses; it may use no others.
    """
    return _environment().get_template(template).render(context).encode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pwm.reporting", "templates"),
        autoescape=select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        fixed=_fixed,
        span=_span,
        percent=_percent,
        counted=counted,
        duration=_duration,
        markdown_table=markdown_table,
        css=lambda colour: colour.replace("_", "-"),
    )
    return environment


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, of which the first row is the head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def _fixed(value: float | None, digits: int = 1) -> str:
    return "\N{EN DASH}" if value is None or not np.isfinite(value) else f"{value:z,.{digits}f}"


def _span(interval: Interval | None) -> str:
    return "\N{EN DASH}" if interval is None else f"{interval[0]:z,.1f} to {interval[1]:z,.1f}"


def _percent(value: float | None) -> str:
    """A score as a place on the 0..100 axis."""
    return f"{min(max(value or 0.0, 0.0), 100.0):.2f}%"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
