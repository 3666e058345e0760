"""The results as tables in Markdown: what was timed, and what was claimed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TIMES = "| work | ms | target, ms | TFLOP/s | first result, s | ready, s | peak, GB |"
_CLAIMS = "| check | claim | holds | |"


def of(results: Mapping[str, Mapping[str, Any]], gpu: str) -> str:
    """Both tables; one that would be empty is left out."""
    lines = [f"GPU: {gpu}", ""]
    for head, rows in ((_TIMES, list(_times(results))), (_CLAIMS, list(_claims(results)))):
        if rows:
            lines += [head, "| --- " * (head.count("|") - 1) + "|", *rows, ""]
    bad = [f"{name} ({r['status']})" for name, r in results.items() if r["status"] != "ok"]
    return "\n".join([*lines, f"Not well: {', '.join(bad) or 'none'}", ""])


def _facts(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for check, result in results.items():
        for name, fact in result.get("facts", {}).items():
            yield check, name, fact


def _times(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    keys = ("what", "ms", "target_ms", "tflop_s", "first_s", "ready_s", "peak_gb")
    for *_, fact in _facts(results):
        if isinstance(fact, dict) and "ms" in fact:
            cells = (fact.get(key) for key in keys)
            yield "| " + " | ".join("-" if c is None else str(c) for c in cells) + " |"


def _claims(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for check, name, fact in _facts(results):
        if isinstance(fact, dict) and ("holds" in fact or "error" in fact):
            holds = "yes" if fact.get("holds") else "NO"
            rest = {k: v for k, v in fact.items() if k != "holds"}
            text = ", ".join(f"{k} {v}" for k, v in rest.items()).replace("|", "/")
            yield f"| {check} | {name} | {holds} | {text[:160]} |"
