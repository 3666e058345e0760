"""A Jupyter notebook with its outputs as a page of Markdown, for the documentation site."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def notebook_page(notebook: Mapping[str, Any]) -> str:
    """The page of a notebook in format 4: its text, its code, what it printed and drew."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append("".join(cell["source"]))
        elif cell["cell_type"] == "code":
            parts.append(_fenced("python", "".join(cell["source"])))
            parts += _shown(cell["outputs"])
    return "\n\n".join(parts) + "\n"


def _shown(outputs: list[dict[str, Any]]) -> Iterator[str]:
    printed = ""
    for output in outputs:
        if output["output_type"] == "stream":
            printed += "".join(output["text"])
    if printed.strip():
        yield _fenced("text", _COLOURS.sub("", printed).strip("\n"))
    for output in outputs:
        data = output.get("data", {})
        picture = next((kind for kind in ("image/png", "image/gif") if kind in data), None)
        if picture is not None:
            content = "".join(data[picture]).replace("\n", "")
            yield f'<img alt="output" src="data:{picture};base64,{html.escape(content)}">'
        elif "text/plain" in data:
            yield _fenced("text", "".join(data["text/plain"]))


def _fenced(language: str, content: str) -> str:
    return f"````{language}\n{content}\n````"
