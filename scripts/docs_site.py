"""Hooks of mkdocs: what the documentation site has beside the pages in ``docs/``.

The README is its first page, the pages beside it and the cards of ``checkpoints/`` are pages too,
every package gets a page with the docstrings of its modules, and every notebook a page with its
outputs. Links between pages lead to the
same pages on the site; links to other files of the repository become plain text.
"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

from check_links import ROOT, find_links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from notebook_page import notebook_page

MODULES = "reference/"
"""Stands in the navigation for the packages' pages."""


def on_config(config: MkDocsConfig) -> None:
    """Put the packages' pages into the navigation."""
    pages: list[Any] = [{package: _reference(package)} for package in _packages()]
    config.nav = _replaced(config.nav, pages)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in ``docs/``."""
    for source, place in _outside().items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text()))
    for package in _packages():
        files.append(File.generated(config, _reference(package), content=_package_page(package)))
    for path in sorted((ROOT / "docs").glob("notebooks/*.ipynb")):
        page = notebook_page(json.loads(path.read_text()))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to the site's pages."""
    outside = _outside()
    sources = {place: source for source, place in outside.items()}
    source = ROOT / sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts: list[str] = []
    end = 0
    for link in find_links(markdown):
        name, hash_sign, anchor = link.target.partition("#")
        target = (source.parent / name).resolve()
        if not name or not target.is_relative_to(ROOT) or not target.exists():
            continue
        path = target.relative_to(ROOT).as_posix()
        place = outside.get(path, path.removeprefix("docs/"))
        parts.append(markdown[end : link.start])
        if files.get_file_from_path(place):
            start = os.path.relpath(place, Path(page.file.src_uri).parent)
            image = "!" if markdown[link.start] == "!" else ""
            parts.append(f"{image}[{link.text}]({start}{hash_sign}{anchor})")
        else:
            parts.append(link.text)
        end = link.end
    return "".join([*parts, markdown[end:]])


def on_page_content(html: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Leave out the roles of docstrings, as in ``:func:`load_policy```."""
    return re.sub(r":(?:func|class|meth|mod|attr|data):(?=<code>)", "", html)


def _outside() -> dict[str, str]:
    """Pages outside ``docs/`` by their path in the repository, and their place on the site."""
    cards = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("checkpoints/**/*.md")]
    pages = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *cards]
    return {"README.md": "index.md", **{path: path for path in pages}}


def _packages() -> list[str]:
    """The packages that have a page, ``pwm.data.windows`` too."""
    found = sorted(path.parent for path in ROOT.glob("pwm/**/__init__.py"))
    names = [".".join(path.relative_to(ROOT).parts) for path in found]
    return ["envs", *names[1:]]


def _reference(package: str) -> str:
    return f"reference/{package}.md"


def _package_page(package: str) -> str:
    """A page that shows every module of a package, its ``__init__`` as the introduction."""
    directory = ROOT.joinpath(*package.split("."))
    charter = ast.get_docstring(ast.parse((directory / "__init__.py").read_text())) or ""
    modules = sorted(path.stem for path in directory.glob("*.py") if path.stem[:2] != "__")
    if not charter or not modules:
        raise ValueError(f"package {package} has no docstring or no module")
    level = "    options:\n      heading_level: 2\n"
    shown = [f"::: {package}.{name}\n{level}" for name in modules]
    return "\n".join([f"# {package}\n\n{charter}\n", *shown])


def _replaced(nav: Any, pages: list[Any]) -> Any:
    if isinstance(nav, dict):
        return {name: pages if under == MODULES else _replaced(under, pages)
                for name, under in nav.items()}  # fmt: skip
    return [_replaced(entry, pages) for entry in nav] if isinstance(nav, list) else nav
