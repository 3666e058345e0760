from __future__ import annotations

from pathlib import Path

import pytest
from check_links import anchors, dead_links, find_links, pages


def test_no_page_has_a_dead_link():
    assert [line for page in pages() for line in dead_links(page)] == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository with one page that all others may link to."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.md").write_text("# The other\n\n## What `it` says, twice\n")
    (tmp_path / "docs" / "picture.png").touch()
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md)",
        "[a](other.md#what-it-says-twice)",
        "![a](picture.png)",
        "[a](#here)",
        "[a](https://example.org/nowhere#x)",
        "```\n[a](nowhere.md)\n```",
        "`[a](nowhere.md)`",
        "`docs/other.md` and `docs/*.md`",
        "`pwm pretrain steps=...`",
    ],
)
def test_a_page_whose_links_lead_somewhere_is_clean(root, text):
    page = root / "docs" / "page.md"
    page.write_text(f"# Here\n\n{text}\n")
    assert dead_links(page, root) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](nowhere.md)", "there is no nowhere.md"),
        ("![a](nowhere.png)", "there is no nowhere.png"),
        ("[a](other.md#elsewhere)", "other.md has no heading #elsewhere"),
        ("[a](#there)", "page.md has no heading #there"),
        ("[a](../../outside.md)", "there is no ../../outside.md"),
        ("[**b** `c`](nowhere.md)", "there is no nowhere.md"),
        ("see `docs/nowhere.md`", "there is no docs/nowhere.md, which is named as code"),
    ],
)
def test_a_dead_link_is_found(root, text, said):
    (root.parent / "outside.md").touch()
    page = root / "docs" / "page.md"
    page.write_text(f"# Here\n\n{text}\n")
    assert dead_links(page, root) == [f"docs/page.md: {said}"]


def test_repeated_headings_are_numbered():
    assert anchors("# A\n## B c\n## B c\n```\n# no\n```\n") == {"a", "b-c", "b-c-1"}


def test_a_link_is_found_where_it_stands():
    text = "one\n`[x](y)` and [**two** `three`](four.md#five)."
    (link,) = find_links(text)
    assert text[link.start : link.end] == "[**two** `three`](four.md#five)"
    assert (link.text, link.target) == ("**two** `three`", "four.md#five")
