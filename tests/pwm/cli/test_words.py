"""Paths and names as they are typed, and lists without brackets."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import pytest

from pwm.cli.commands import COMMANDS
from pwm.cli.main import _schema
from pwm.cli.multirun import run_jobs
from pwm.cli.words import hydra_value
from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.extraction.extract import extract
from pwm.pipelines import jobs


def schema(name: str) -> Any:
    command = COMMANDS[name]
    return _schema(name, getattr(import_module(command.module), command.config))


EXTRACT = schema("extract")
NEEDED = ("checkpoint=model", "data=store", "out=run")


def composed(*words: str) -> Any:
    current = EXTRACT.current([*NEEDED, *words])
    EXTRACT.check(current)
    return EXTRACT.composed(current)


PATHS = (
    *("my=run", "a#b", "café", "日本", "a[1]", "a]", "a'b", 'a"b', "a(1)", "a{b}", "a;b", "a!b"),
    *(
        "a&b",
        "1e3",
        "100",
        "true",
        "1_000",
        "-x",
        "a b",
        "a\\b",
        "a\\",
        'a\\"',
        "a~b",
        "nan",
        "a:b",
    ),
)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_what_stands_behind_the_first_equals_sign(path: str) -> None:
    config = composed(f"out={path}", f"init={path}")
    assert (config.out, config.init) == (path, path)
    assert composed(f"ensemble=[{hydra_value(path)}]").ensemble == [path]


def test_quotes_around_a_text_are_none_of_it() -> None:
    assert composed("out='a,b'").out == composed('out="a,b"').out == "a,b"
    assert composed("out=~/runs").out == os.path.expanduser("~/runs")
    assert composed("init=null").init is None


def test_lists_do_without_brackets_and_quotes() -> None:
    assert composed("tasks=walker-run,cheetah-run").tasks == "walker-run,cheetah-run"
    names = "walker-run", "cheetah-run"
    assert get_suite(composed("tasks=walker-run,cheetah-run").tasks).names == names
    assert composed("tasks=[walker-run,cheetah-run]").tasks == list(names)
    assert composed("tasks=mt30").tasks == "mt30"
    assert composed("ensemble=a,b=c").ensemble == composed("ensemble=[a,b=c]").ensemble
    assert composed("ensemble=a,b=c").ensemble == ["a", "b=c"]
    assert composed("ensemble=a").ensemble == ["a"]
    assert composed("ensemble=").ensemble == []
    assert composed("learner.networks.actor=8,8").learner.networks.actor == [8, 8]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("out=a,b", """text with a comma as 'out="a,b"', or one run for each with -m"""),
        ("out=[a]", """For this very text give 'out="[a]"'."""),
        ("seed=a=b", "cannot read 'seed=a=b'"),
        ("seed=it's", """cannot read 'seed=it'"'"'s'"""),
        ("tasks=[a],[b]", "a list as 'tasks=[a,b]'"),
    ],
)
def test_what_cannot_be_read_is_told_as_it_is_to_be_typed(word: str, message: str) -> None:
    with pytest.raises(PwmError) as caught:
        composed(word)
    assert message in str(caught.value)


def test_lists_of_tasks_are_jobs_as_documented(toy, tmp_path, monkeypatch):
    """Two jobs, the first of which has two tasks; the paths have an accent in them."""
    launched: list[list[str]] = []
    monkeypatch.setattr(jobs, "_announce", lambda *given: None)
    monkeypatch.setattr("pwm.cli.multirun._require_done", lambda *given: None)
    monkeypatch.setattr("pwm.cli.multirun.Jobs.read", lambda run: None)
    out = tmp_path / "café"
    words = [
        "-m", "tasks=[walker-run,walker-walk],[mw-push]", f"out={out}", f"data={toy.data}",
        f"checkpoint={toy.data}",
    ]  # fmt: skip
    words = EXTRACT.current(words)
    run_jobs(EXTRACT, words, extract, lambda given, work: launched.append(given))
    (given,) = launched
    assert EXTRACT.swept(given, "tasks")[0] == [["walker-run", "walker-walk"], ["mw-push"]]
    override = EXTRACT._parse(next(word for word in given if word.startswith("hydra.sweep.dir")))
    assert override.value() == f"{out}/jobs"
