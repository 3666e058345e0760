from __future__ import annotations

import shutil

import pytest
from stores import make_episode

from pwm.cli.data_command import data_command
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Suite
from pwm.data.store import EpisodeStore


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy.data, tmp_path / "store")


def damage(path, offset: int = 100) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def test_info_shows_every_task(toy, capsys):
    assert main(["data", "info", str(toy.data)]) == 0
    shown = capsys.readouterr().out
    for name in toy.tasks:
        assert name in shown
    assert "24" in shown
    assert "toy (48 episodes)" in shown


def test_long_names_of_behaviours_leave_room_for_the_task(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    task = SUITES["mt80"]["mw-button-press-topdown-wall"]
    with EpisodeStore.create(tmp_path / "s", Suite("one", (task,))) as store:
        store.add_source("test", {})
        store.append(task.name, [make_episode(task, 100, behaviour="b" * 64)], "test")
    assert main(["data", "info", str(tmp_path / "s")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    first = next(i for i, line in enumerate(lines) if "──" in line) + 1
    columns = [(line[:14].strip(), line[62:].strip()) for line in lines[first:-2]]
    name, behaviour = ("".join(parts) for parts in zip(*columns, strict=True))
    assert name == task.name
    assert behaviour == f"100% {'b' * 64}"


def test_verify_of_a_whole_store(toy, capsys):
    assert main(["data", "verify", str(toy.data)]) == 0
    assert "is whole: every checksum matches" in capsys.readouterr().out


def test_verify_lists_every_fault_and_fails(copy, capsys):
    damage(copy / "reacher-easy" / "rows.bin")
    damage(copy / "pendulum-swingup" / "rows.bin")
    assert main(["data", "verify", str(copy)]) == 1
    captured = capsys.readouterr()
    assert "reacher-easy/rows.bin" in captured.out
    assert "pendulum-swingup/rows.bin" in captured.out
    assert "problem(s), listed above" in captured.err
    assert str(copy) in captured.err


def test_tasks_lists_all_with_their_suites(capsys):
    assert main(["data", "tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for task in SUITES["mt80"]:
        (line,) = (words for words in map(str.split, lines) if task.name in words)
        assert str(task.obs_dim) in line
        assert str(task.action_dim) in line
        assert "mt80" in line or "mt80," in line


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_usage(words, capsys):
    data_command(words)
    shown = capsys.readouterr().out
    assert all(f"pwm data {word}" in shown for word in ("info", "verify", "tasks"))


@pytest.mark.parametrize(
    "words", [["inform"], ["info"], ["verify"], ["info", "a", "b"], ["tasks", "x"]]
)
def test_other_words_get_the_usage(words):
    with pytest.raises(PwmError, match=r"does not understand .* give `pwm data info DIR`, "):
        data_command(words)


@pytest.mark.parametrize("word", ["info", "verify"])
def test_no_store_there(word, tmp_path, capsys):
    assert main(["data", word, str(tmp_path)]) == 1
    assert "no episode store" in capsys.readouterr().err


def test_info_and_verify_of_an_empty_store(tmp_path, capsys):
    EpisodeStore.create(tmp_path / "empty", SUITES["quick"]).close()
    assert main(["data", "info", str(tmp_path / "empty")]) == 0
    assert "mw-reach" in capsys.readouterr().out
    assert main(["data", "verify", str(tmp_path / "empty")]) == 0
