from __future__ import annotations

import multitask_study
import pytest

from pwm.multitask.groups import read_groups, write_groups


def test_what_is_read_of_held_out_episodes():
    tasks = {
        "a": {"latent_error": {"1": 9.0, "16": 0.2}, "reward_r2": {"1": 0.9, "16": 0.5}},
        "b": {"latent_error": {"1": 0.4, "4": 0.6}, "reward_r2": {"1": 0.1, "4": 0.7}},
        "c": {"latent_error": {"16": 0.4}, "reward_r2": {"16": None}},
        "d": {"latent_error": {"16": 0.4}, "reward_r2": {"16": -2.1}},
    }
    found = multitask_study.measured({"tasks": tasks})
    assert found == pytest.approx((0.5, -0.3, -2.1, 0.4, 0.6))


def test_the_table_has_means_and_errors_over_seeds():
    rows = [(0.5, 0.25, 0.1, 0.3, 10.0), (0.7, 0.25, 0.1, 0.3, 30.0)]
    lines = multitask_study.table({"uniform": rows, "mgda": rows[:1]}).splitlines()
    assert (
        lines[2]
        == "| uniform | 0.600 ± 0.100 | 0.250 ± 0.000 | 0.100 ± 0.000 | 0.300 ± 0.000 | 20 |"
    )
    assert lines[3] == "| mgda | 0.500 | 0.250 | 0.100 | 0.300 | 10 |"


def without_seconds(table: str) -> list[list[str]]:
    return [line.split("|")[:-2] for line in table.splitlines()]


def test_a_study_of_two_ways_is_made_once(toy, tmp_path, capsys, monkeypatch):
    words = toy.pretrain(tmp_path)[3:]
    given = [str(toy.data), str(tmp_path), "--ways", "uniform", "upgrad", "--seeds", "1", "steps=2"]
    given += [word for word in words if not word.startswith("steps=")]
    multitask_study.main(given)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["uniform", "upgrad"]
    (made,) = (tmp_path / "upgrad/seed_0/checkpoints").glob("step_*/checkpoint.json")
    before = made.stat().st_mtime_ns
    multitask_study.main(given)
    assert without_seconds((tmp_path / "table.md").read_text()) == without_seconds(table)
    assert made.stat().st_mtime_ns == before


def test_with_equal_time_a_slow_way_gets_fewer_updates(tmp_path, monkeypatch):
    seconds = {"uniform": 0.1, "upgrad": 0.4}
    asked = []

    def run(data, out, way, setting, seed, words):
        (steps,) = (int(word[6:]) for word in words if word.startswith("steps="))
        asked.append((way, steps))
        return 0.5, 0.2, 0.1, 0.3, 0.4, 3 + seconds[way] * steps

    monkeypatch.setattr(multitask_study, "run", run)
    given = ["data", str(tmp_path), "steps=80", "--equal-time", "--seeds", "2", "--ways"]
    multitask_study.main([*given, "uniform", "upgrad"])
    trained = [("uniform", 80), ("upgrad", 20)] * 2
    assert asked[-4:] == trained
    asked.clear()
    multitask_study.main([*given, "uniform", "upgrad"])  # timed once
    assert asked == trained
    with pytest.raises(SystemExit, match="needs steps=N"):
        multitask_study.main(["data", str(tmp_path / "b"), "--equal-time", "--ways", "uniform"])


def test_ways_of_grouping_are_those_of_an_analysis_and_chance(tmp_path):
    groups = [["a", "b", "c"], ["d", "e"]]
    (tmp_path / "groups").mkdir()
    for way in ("gradient", "data_map"):
        write_groups(tmp_path / "groups" / f"{way}.json", way, groups)
    ways = multitask_study.group_ways(tmp_path)
    assert list(ways) == ["uniform", "groups by data map", "groups by gradient", "random groups"]
    assert ways["groups by gradient"] == f"groups={tmp_path}/groups/gradient.json"
    like, drawn = tmp_path / "groups" / "gradient.json", []
    for seed in (0, 1, 1):
        setting = multitask_study.random_groups(like, tmp_path / "random" / "x.json", seed)
        assert setting == f"groups={tmp_path}/random/x.json"
        drawn.append(read_groups(tmp_path / "random" / "x.json"))
        assert [len(group) for group in drawn[-1]] == [3, 2]
        assert sorted(name for group in drawn[-1] for name in group) == list("abcde")
    assert drawn[1] == drawn[2] != drawn[0]
    with pytest.raises(SystemExit, match="has no groups"):
        multitask_study.group_ways(tmp_path / "random")
