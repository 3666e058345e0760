"""Dead links in the project's Markdown: ``python scripts/check_links.py`` lists them and fails.

Relative links must lead to a file or directory of the repository, anchors to a heading, and a path
of the repository that is written as code, such as ``pwm/core/files.py``, must exist. Links to other
sites are not followed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*[ ]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"!?\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6}[ ]+(.+?)[ ]*#*$", re.MULTILINE)
_PATH = re.compile(r"(?:checkpoints|configs|docs|envs|plugins|pwm|scripts|tests)/[\w./-]*\w")


@dataclass(frozen=True)
class Link:
    """A link or an image of a Markdown text.

    Attributes:
        start, end: where it stands in the text.
        text: between the brackets.
        target: between the parentheses.
    """

    start: int
    end: int
    text: str
    target: str


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown files that people read."""
    named = [root / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")]
    return [*named, *sorted(root.glob("docs/**/*.md")), *sorted(root.glob("checkpoints/**/*.md"))]


def find_links(markdown: str) -> Iterator[Link]:
    """Every inline link and image outside code."""
    for match in _LINK.finditer(blank_code(markdown)):
        text = markdown[match.start("text") : match.end("text")]
        yield Link(match.start(), match.end(), text, match["target"])


def anchors(markdown: str) -> set[str]:
    """The anchors of the headings, on GitHub and, but for repeated headings, on the site."""
    counts: Counter[str] = Counter()
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", markdown)):
        text = _LINK.sub(r"\g<text>", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{anchor}-{counts[anchor]}" if counts[anchor] else anchor)
        counts[anchor] += 1
    return found


def dead_links(page: Path, root: Path = ROOT) -> list[str]:
    """One line per link of a page that leads nowhere."""
    markdown = page.read_text(encoding="utf-8")
    dead: list[str] = []
    for link in find_links(markdown):
        if re.match(r"[a-z][a-z+.-]*:", link.target):
            continue
        name, _, anchor = link.target.partition("#")
        target = page.parent / unquote(name) if name else page
        if not target.exists() or not target.resolve().is_relative_to(root.resolve()):
            dead.append(f"there is no {link.target}")
        elif anchor and (target.suffix != ".md" or anchor not in _anchors_of(target)):
            dead.append(f"{target.name} has no heading #{anchor}")
    for _, code in _CODE.findall(_FENCE.sub("", markdown)):
        if _PATH.fullmatch(code) and not any(root.glob(code)):
            dead.append(f"there is no {code}, which is named as code")
    return [f"{page.relative_to(root)}: {line}" for line in dead]


@cache
def _anchors_of(page: Path) -> set[str]:
    return anchors(page.read_text(encoding="utf-8"))


def blank_code(markdown: str) -> str:
    """The text with code replaced by spaces, so that positions stay."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return _CODE.sub(blank, _FENCE.sub(blank, markdown))


def main() -> int:
    """Print every dead link."""
    dead = [line for page in pages() for line in dead_links(page)]
    print("\n".join(dead) or f"{len(pages())} pages: no dead link")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
