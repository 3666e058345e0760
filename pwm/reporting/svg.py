"""Matplotlib figures as inline SVG that follows the page's light or dark colours.

A figure is drawn in the light colours of PALETTE; each is then replaced by the CSS variable of that
name, so that one drawing serves both colour schemes. Text stays text.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE: dict[str, tuple[str, str]] = {  # name: (light, dark)
    "ink": ("#1c2127", "#e6e9ed"),
    "muted": ("#5f6873", "#9aa4b0"),
    "rule": ("#dfe3e8", "#30363e"),
    "extracted": ("#0b63b0", "#5aaaf2"),
    "planner": ("#0d8f8f", "#45c4c0"),
    "planner_actor": ("#4a55c4", "#8f98f5"),
    "random": ("#8b939e", "#7d8793"),
    "bc": ("#e3a24a", "#d9a559"),
    "bc_best": ("#c2621b", "#ee8f4d"),
    "data_mean": ("#93b8a4", "#6f9c85"),
    "data_best": ("#3d8361", "#62b88e"),
    "published_a": ("#7b53a6", "#b795e0"),
    "published_b": ("#b04a80", "#e08bb5"),
}
COLOURS = {name: light for name, (light, _) in PALETTE.items()}
"""What figures are drawn in."""

FONT = 10.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pwm",
    "font.size": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    **{f"{axis}tick.color": COLOURS["rule"] for axis in "xy"},
    **{f"{axis}tick.labelcolor": COLOURS["muted"] for axis in "xy"},
    **dict.fromkeys(("ytick.major.size", "ytick.minor.size", "xtick.minor.size"), 0),
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_XLINK = "{http://www.w3.org/1999/xlink}href"

styled = matplotlib.rc_context(_STYLE)
"""Decorates functions that draw: figures are made, drawn and turned into text in one style."""


def axes(right: float = 0.97, size: tuple[int, int] = (330, 190)) -> Axes:
    """The axes of a new figure.

    Args:
        right: where they end, as a share of the width; labels of lines go beyond.
        size: of the figure in SVG units, which are CSS pixels at scale 1.
    """
    figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
    return figure.add_axes((0.13, 38 / size[1], right - 0.13, 1 - 50 / size[1]))


def inline(figure: Any, alt: str) -> str:
    """A figure without namespaces, document-wide styles and unused ids, in CSS variables.

    Args:
        figure: drawn with matplotlib in COLOURS.
        alt: what a screen reader says.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = buffer.getvalue()
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg.decode()))
    prefix = f"p{zlib.crc32(svg + alt.encode()):x}-"
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style"}:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", prefix + str(name))
        target = element.attrib.pop(_XLINK, None)
        if target is not None:
            element.set("href", "#" + prefix + target[1:])
        for key, value in element.attrib.items():
            element.set(key, value.replace("url(#", f"url(#{prefix}"))
    _, _, width, height = root.get("viewBox", "0 0 1 1").split()
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-label": alt,
        "class": "plot",
    }
    text = ElementTree.tostring(root, encoding="unicode")
    for name, light in COLOURS.items():
        text = text.replace(light, f"var(--{name.replace('_', '-')})")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's own
    return re.sub(r">\s+<", "><", text)


def standalone(drawing: str) -> str:
    """An inline drawing as a file of its own, in light colours, for any viewer."""
    for name, light in COLOURS.items():
        drawing = drawing.replace(f"var(--{name.replace('_', '-')})", light)
    root, rest = drawing.split(">", 1)
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'{root} font-family="sans-serif" xmlns="http://www.w3.org/2000/svg">{paper}{rest}'


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]
