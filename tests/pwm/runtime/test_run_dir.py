from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from pwm.core.errors import PwmError
from pwm.core.settings import setting
from pwm.core.versions import git_revision, versions
from pwm.runtime.run_dir import open_run, read_run


@dataclass
class Inner:
    width: int = 4
    rate: float = 1e-5
    prefetch: int = setting(2, may_change=True)


@dataclass
class Config:
    seed: int = 3
    name: str | None = None
    workers: int = setting(1, may_change=True)
    out: str = "."
    resume: str = "auto"
    inner: Inner = field(default_factory=Inner)
    layers: list[int] = field(default_factory=lambda: [8, 8])


def run(directory, config=None, command="test"):
    with open_run(directory, command, config or Config()) as path:
        return path


def test_a_run_records_its_settings_versions_and_seed(tmp_path):
    assert run(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    config = yaml.safe_load((tmp_path / "a" / "b" / "config.yaml").read_text())
    assert config == {
        "seed": 3, "name": None, "workers": 1, "out": ".", "resume": "auto",
        "inner": {"width": 4, "rate": 1e-5, "prefetch": 2}, "layers": [8, 8],
    }  # fmt: skip
    record = read_run(tmp_path / "a" / "b")
    assert record["command"] == "test"
    assert record["seed"] == 3
    assert record["versions"]["torch"] == versions()["torch"]
    assert record["git"] == git_revision()
    assert record["finished"] is True
    assert record["seconds"] >= 0


def test_the_same_settings_go_on(tmp_path):
    run(tmp_path)
    run(tmp_path, Config())
    run(tmp_path, Config(workers=9, inner=Inner(prefetch=9)))
    run(tmp_path.rename(tmp_path.parent / "moved"), Config(out="moved"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(seed=4), "seed: 3 -> 4"),
        (Config(name="x"), "name: None -> x"),
        (Config(inner=Inner(width=5)), "inner.width: 4 -> 5"),
        (Config(layers=[8]), "layers: [8, 8] -> [8]"),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path, config, words):
    run(tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(PwmError) as caught:
        run(tmp_path, config)
    assert f"({words})" in str(caught.value)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_setting_of_a_newer_version_counts_as_its_default(tmp_path):
    run(tmp_path)
    file = tmp_path / "config.yaml"
    older = yaml.safe_load(file.read_text())
    del older["layers"], older["inner"]["rate"]
    file.write_text(yaml.safe_dump(older))
    with pytest.raises(PwmError, match=r"layers: \[8, 8\] -> \[9\]"):
        run(tmp_path, Config(layers=[9]))
    run(tmp_path)
    assert yaml.safe_load(file.read_text())["layers"] == [8, 8]


def test_another_command_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(PwmError, match="run of `pwm test`"):
        run(tmp_path, command="other")


def test_resume_never_and_unknown_resume(tmp_path):
    run(tmp_path / "a", Config(resume="never"))
    with pytest.raises(PwmError, match="resume=never"):
        run(tmp_path / "a", Config(resume="never"))
    with pytest.raises(PwmError, match="auto or never"):
        run(tmp_path / "b", Config(resume="always"))
    assert not (tmp_path / "b").exists()


def test_a_failed_run_is_not_finished_and_its_time_counts(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("pwm.runtime.run_dir.time.time", lambda: float(next(clock)))
    with pytest.raises(KeyError), open_run(tmp_path, "test", Config()):
        raise KeyError
    record = read_run(tmp_path)
    assert record["finished"] is False
    assert record["seconds"] == 10
    run(tmp_path)
    record = read_run(tmp_path)
    assert record["finished"] is True
    assert record["seconds"] == 20


def test_a_second_writer_is_refused(tmp_path):
    with (
        open_run(tmp_path, "test", Config()),
        pytest.raises(PwmError, match="being written by process"),
    ):
        run(tmp_path)
    run(tmp_path)


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PwmError, match="File exists"):
            run(path)


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
@pytest.mark.parametrize("content", [b"- 1\n", b"a: [", b"\xff\xfe\0", b"5", b""])
def test_damaged_records_are_refused(name, content, tmp_path):
    run(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PwmError, match=f"{name} is damaged"):
        run(tmp_path)


def test_no_run_reads_as_empty(tmp_path):
    assert read_run(tmp_path) == {}


def test_a_record_of_settings_runs_nothing(tmp_path, monkeypatch):
    """Neither a constructor nor an interpolation in a directory from elsewhere is carried out."""
    monkeypatch.setenv("SECRET", "told")
    run(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: !!python/object/apply:sys.exit [3]\n")
    with pytest.raises(PwmError, match=r"config.yaml is damaged"):
        run(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: ${oc.env:SECRET}\n")
    with pytest.raises(PwmError) as refused:
        run(tmp_path)
    assert "told" not in str(refused.value)


@dataclass
class Reading(Config):
    data: str = setting("", input_path=True)


def test_a_path_may_be_written_otherwise_where_it_leads_to_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    out, made_of = tmp_path / "out", {"data=": "1"}
    for data in ("data", "data/", "./data", str(tmp_path / "data")):
        with open_run(out, "test", Reading(data=data)):
            pass
    with open_run(out, "test", Reading(data="data"), made_of):
        pass
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(PwmError, match="data: data -> moved"):
        run(out, Reading(data="moved"))
    with (
        pytest.raises(PwmError, match="data: data -> moved"),
        open_run(out, "test", Reading(data="moved"), {"data=": "2"}),
    ):
        pass
    with open_run(out, "test", Reading(data="moved"), made_of):
        pass


@dataclass
class OfTasks(Config):
    suite: Any = None


def test_tasks_may_be_listed_in_brackets_or_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").touch()
    for suite in ("mt30,own.yaml", ["mt30", "./own.yaml"], f"mt30, {tmp_path}/own.yaml"):
        run(tmp_path / "out", OfTasks(suite=suite))
    with pytest.raises(PwmError, match="suite: "):
        run(tmp_path / "out", OfTasks(suite="mt30"))
    run(tmp_path / "one", OfTasks(suite="mt30"))
    run(tmp_path / "one", OfTasks(suite=["mt30"]))


def test_what_results_were_made_from_may_not_have_changed(tmp_path, capsys):
    def opened(made_of, settled=()):
        with open_run(tmp_path, "test", Config(), made_of, settled):
            return read_run(tmp_path)["made_of"]

    assert opened({"a": "1", "b": "1"}) == {"a": "1", "b": "1"}
    assert opened({"a": "2"}) == {"a": "2", "b": "1"}  # there is no result of it yet
    assert opened({"a": "2", "c": "1"}, ["a", "c"]) == {"a": "2", "b": "1", "c": "1"}
    with pytest.raises(PwmError, match="was made before a and c changed"):
        opened({"a": "3", "b": "2", "c": "3"}, ["a", "c"])
    assert read_run(tmp_path)["made_of"]["a"] == "2"
    assert "not on record" not in capsys.readouterr().err


def test_a_run_of_before_fingerprints_is_kept_and_said_so_once(tmp_path, capsys):
    run(tmp_path)
    for _ in range(2):
        with open_run(tmp_path, "test", Config(), {"a": "1"}, ["a"]):
            pass
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("was made from is not on record; it is kept") == 1


def test_a_mistake_before_the_first_file_leaves_the_directory_to_other_settings(tmp_path):
    with pytest.raises(PwmError, match="mistake"), open_run(tmp_path, "test", Config(seed=4)):
        raise PwmError("a mistake")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    run(tmp_path)
    assert read_run(tmp_path)["seed"] == 3


@pytest.mark.parametrize("there", ["run", "other file"])
def test_a_mistake_keeps_the_records_beside_what_there_is(there, tmp_path):
    if there == "run":
        run(tmp_path)
    else:
        (tmp_path / "model").touch()
    with pytest.raises(PwmError, match="mistake"), open_run(tmp_path, "test", Config()):
        raise PwmError("a mistake")
    assert read_run(tmp_path)["finished"] is False
    assert (tmp_path / "config.yaml").exists()
