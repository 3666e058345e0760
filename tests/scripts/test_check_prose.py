from __future__ import annotations

import pytest
from check_links import blank_code
from check_prose import docstrings, wording


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("an own\ntask of yours", "own task"),
        ("Ten episodes a task", "episodes a task"),
        ("Allotments", "Allotments"),
        ("behaviour cloning", "behaviour cloning"),
    ],
)
def test_a_wording_that_was_given_up_is_found(text, shown):
    (line,) = wording(f"first\n{text}", "page.md")
    assert line.startswith(f"page.md:2: '{shown}': say ")


@pytest.mark.parametrize("text", ["ten episodes per task", "its own task table's", "a task"])
def test_other_wordings_are_left_alone(text):
    assert wording(text.replace("own task", "own, task"), "page.md") == []


def test_code_on_a_page_is_left_alone():
    assert wording(blank_code("`own_tasks` `own task`\n```\n10 episodes a task\n```\n"), "p") == []


def test_rules_of_pages_do_not_hold_in_docstrings():
    assert wording("behaviour cloning", "module.py", docstring=True) == []
    assert len(wording("an own task", "module.py", docstring=True)) == 1


def test_docstrings_stand_where_they_are():
    source = 'x = "no"\n\n\ndef f():\n    """Own task."""\n    return "own task"\n'
    (text,) = docstrings(source)
    assert wording(text, "m.py", docstring=True) == [
        "m.py:5: 'Own task': say task file, or user-defined task"
    ]
