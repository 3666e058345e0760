from __future__ import annotations

import dataclasses
import itertools
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import FORK, exit_code_of_fork, result_of_fork
from stores import SMALL, make_episode
from tdmpc2_files import CHUNK_2023, chunk_fields, make_chunk, save_chunk

import pwm.interop.export_data
from pwm.cli import main as cli
from pwm.core.errors import PwmError
from pwm.core.locks import DirectoryLock
from pwm.core.suites import SUITES, Suite, get_suite
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.interop.conversion import ConvertConfig
from pwm.interop.convert import convert

MT30, MT80 = SUITES["mt30"], SUITES["mt80"]


def content(directory: Path) -> dict[str, bytes]:
    """Every file of a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def counts(store: EpisodeStore) -> dict[str, int]:
    return {task.name: store.count(task.name) for task in store.suite if store.count(task.name)}


def make_set(directory: Path, files: int, episodes: int, rows: int = 5) -> Path:
    """A set in MT80's format: each file has shuffled episodes of five tasks, walker-run in all."""
    directory.mkdir()
    draw = np.random.default_rng(0)
    for number in range(files):
        tasks = [2, *range(4 * number, 4 * number + 4)]
        ids = draw.permutation(np.resize(tasks, episodes)).tolist()
        make_chunk(directory / f"chunk_{number}.pt", MT80, ids, rows, seed=number)
    return directory


@pytest.fixture(scope="module")
def mt80_set(tmp_path_factory):
    """Twenty files, and the store they make."""
    directory = tmp_path_factory.mktemp("twenty")
    source = make_set(directory / "mt80", files=20, episodes=20)
    convert(ConvertConfig(str(source), str(directory / "store"), "mt80"))
    return source, directory / "store"


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """Two files, and the store they make."""
    directory = tmp_path_factory.mktemp("two")
    source = make_set(directory / "set", files=2, episodes=10)
    convert(ConvertConfig(str(source), str(directory / "store"), "mt80"))
    return source, directory / "store"


def printed(capsys) -> str:
    """What was printed, with line breaks of the terminal's width undone."""
    return " ".join(capsys.readouterr().err.split())


def test_a_file_of_2023_becomes_a_store(tmp_path, capsys):
    out = convert(ConvertConfig(str(CHUNK_2023), str(tmp_path / "s"), "mt30"))
    store = EpisodeStore.open(out)
    assert counts(store) == {
        "walker-stand": 1,
        "cheetah-run": 2,
        "pendulum-swingup": 1,
        "reacher-three-easy": 1,
        "pendulum-spin": 1,
    }
    expected = torch.load(CHUNK_2023, weights_only=False)
    episode = store.episode("cheetah-run", 1)
    np.testing.assert_array_equal(episode.obs, expected[2]["obs"][:, :17])
    np.testing.assert_array_equal(episode.action, expected[2]["action"][1:])
    np.testing.assert_array_equal(episode.reward, expected[2]["reward"][1:])
    assert episode.success is None
    assert not episode.terminated.any()
    assert episode.behaviour == "replay"
    rows = store.rows("cheetah-run")
    assert np.isnan(rows["action"][[0, 41]]).all()
    assert np.isnan(rows["reward"][[0, 41]]).all()
    assert not list(verify(store))
    told = printed(capsys)
    assert "6 episodes, 246 rows from 1 file, 0 episodes skipped" in told
    assert "cheetah-run 2 82" in told
    source = store.sources[f"tdmpc2/{CHUNK_2023.name}"]
    assert source["episodes"]["cheetah-run"] == 2
    assert source["rows"]["cheetah-run"] == 82
    assert source["steps_an_episode"] == 40
    assert "not published" in store.sources["tdmpc2"]["success"]


@pytest.mark.slow
def test_a_set_of_twenty_files_in_numeric_order(mt80_set):
    source, path = mt80_set
    store = EpisodeStore.open(path)
    assert store.suite == MT80
    assert counts(store) == {**dict.fromkeys(MT80.names, 4), "walker-run": 84}
    assert list(store.sources)[1:] == [f"tdmpc2/chunk_{number}.pt" for number in range(20)]
    assert not list(verify(store))
    position = dict.fromkeys(MT80.names, 0)
    for number in range(20):
        chunk = torch.load(source / f"chunk_{number}.pt", weights_only=False)
        for task_id, obs in zip(chunk["task"][:, 0].tolist(), chunk["obs"], strict=True):
            task = MT80.tasks[task_id]
            stored = store.episode(task.name, position[task.name])
            np.testing.assert_array_equal(stored.obs, obs[:, : task.obs_dim])
            position[task.name] += 1


def test_pieces_of_dmcontrol_episodes_are_named(tmp_path):
    make_chunk(tmp_path / "chunk_0.pt", MT80, [2, 40], 101, seed=1)
    out = convert(ConvertConfig(str(tmp_path / "chunk_0.pt"), str(tmp_path / "s"), "mt80"))
    source = EpisodeStore.open(out).sources["tdmpc2/chunk_0.pt"]
    assert source["steps_an_episode"] == 100
    assert source["pieces_of_episodes"] == list(MT30.names)


@pytest.mark.parametrize("tasks", [["mw-push", "walker-run"], "mw-push,walker-run"])
def test_chosen_tasks_only(mt80_set, tmp_path, tasks):
    source, path = mt80_set
    config = ConvertConfig(str(source), str(tmp_path / "s"), "mt80", tasks=tasks)
    store, whole = EpisodeStore.open(convert(config)), EpisodeStore.open(path)
    assert store.suite.names == ("walker-run", "mw-push")
    for name in store.suite.names:
        assert store.count(name) == whole.count(name)
        np.testing.assert_array_equal(store.rows(name)["obs"], whole.rows(name)["obs"])
    batch = WindowSampler(store, 3, 8, seed=0, split="all", suite=MT80).batch(0)
    assert set(batch.task.tolist()) == {MT80.id("walker-run"), MT80.id("mw-push")}
    assert batch.obs.shape == (4, 8, 39)


@pytest.mark.slow
def test_a_limit_takes_the_first_episodes_of_each_task(mt80_set, tmp_path):
    source, path = mt80_set
    config = ConvertConfig(str(source), str(tmp_path / "s"), "mt80", limit=7)
    store, whole = EpisodeStore.open(convert(config)), EpisodeStore.open(path)
    for task in MT80:
        taken = store.count(task.name)
        assert taken == min(7, whole.count(task.name))
        expected = whole.rows(task.name)[: taken * 5]
        np.testing.assert_array_equal(store.rows(task.name)["obs"], expected["obs"])


def test_some_of_the_files_are_enough(mt80_set, tmp_path, capsys):
    source, _ = mt80_set
    (tmp_path / "part").mkdir()
    for number in (3, 11):
        os.link(source / f"chunk_{number}.pt", tmp_path / "part" / f"chunk_{number}.pt")
    out = convert(ConvertConfig(str(tmp_path / "part"), str(tmp_path / "s"), "mt80"))
    assert sum(counts(EpisodeStore.open(out)).values()) == 40
    told = printed(capsys)
    assert "The published mt80 set has 20 files" in told
    assert "71 of 80 tasks have no episode" in told


def faulty_set(directory: Path) -> Path:
    """Two files; episode 2 of the second, the fourth of walker-run, has a NaN."""
    directory.mkdir()
    make_chunk(directory / "chunk_0.pt", MT80, [2, 2, 40], 5, seed=0)
    fields = chunk_fields(MT80, [40, 2, 2, 2], 5, seed=1)
    fields["obs"][2, 1, 0] = torch.nan
    save_chunk(directory / "chunk_1.pt", fields)
    return directory


def test_an_unusable_episode_stops_the_conversion_by_name(tmp_path):
    source = faulty_set(tmp_path / "set")
    config = ConvertConfig(str(source), str(tmp_path / "s"), "mt80")
    with pytest.raises(PwmError, match=r"chunk_1\.pt: episode 2, of task walker-run, has NaN"):
        convert(config)
    assert not (tmp_path / "s").exists()
    # what is not asked for is not looked at
    other = ConvertConfig(str(source), str(tmp_path / "o"), "mt80", tasks=[MT80.names[40]])
    assert counts(EpisodeStore.open(convert(other))) == {MT80.names[40]: 2}


def test_unusable_episodes_can_be_skipped_and_are_counted(tmp_path, capsys):
    source = faulty_set(tmp_path / "set")
    config = ConvertConfig(str(source), str(tmp_path / "s"), "mt80", on_error="skip")
    store = EpisodeStore.open(convert(config))
    assert store.count("walker-run") == 4
    assert store.sources["tdmpc2/chunk_1.pt"]["skipped"] == {"walker-run": 1}
    assert "1 episode skipped" in printed(capsys)
    config = ConvertConfig(str(source), str(tmp_path / "l"), "mt80", on_error="skip", limit=4)
    assert EpisodeStore.open(convert(config)).count("walker-run") == 4


def test_a_damaged_file_is_refused(tmp_path):
    fields = chunk_fields(MT80, [2, 2, 40], 5, seed=0)
    path = save_chunk(tmp_path / "chunk_0.pt", fields)
    data = bytearray(path.read_bytes())
    at = bytes(data).index(fields["reward"][1, 2:4].numpy().tobytes())
    data[at] ^= 1  # one bit of one reward
    path.write_bytes(bytes(data))
    with pytest.raises(PwmError, match=r"damaged: Bad CRC-32"):
        convert(ConvertConfig(str(path), str(tmp_path / "s"), "mt80"))


def test_two_files_of_one_content_are_refused(small_set, tmp_path):
    source, _ = small_set
    (tmp_path / "set").mkdir()
    for name in ("chunk_0.pt", "chunk_0 (1).pt"):
        os.link(source / "chunk_0.pt", tmp_path / "set" / name)
    with pytest.raises(PwmError, match="the same content"):
        convert(ConvertConfig(str(tmp_path / "set"), str(tmp_path / "s"), "mt80"))


def test_every_file_is_opened_before_any_is_converted(small_set, tmp_path):
    source, _ = small_set
    (tmp_path / "set").mkdir()
    os.link(source / "chunk_0.pt", tmp_path / "set" / "chunk_0.pt")
    (tmp_path / "set" / "chunk_1.pt").write_bytes((source / "chunk_1.pt").read_bytes()[:-200])
    with pytest.raises(PwmError, match=r"chunk_1\.pt is truncated"):
        convert(ConvertConfig(str(tmp_path / "set"), str(tmp_path / "s"), "mt80"))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_no_episode_of_the_tasks_is_an_error(small_set, tmp_path):
    source, _ = small_set
    config = ConvertConfig(str(source), str(tmp_path / "s"), "mt80", tasks=["mw-sweep"])
    with pytest.raises(PwmError, match="has an episode of mw-sweep"):
        convert(config)
    assert not (tmp_path / "s").exists()


def test_a_finished_conversion_is_not_done_again(small_set, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    for path in small_set[0].iterdir():
        os.link(path, tmp_path / "set" / path.name)
    config = ConvertConfig(str(tmp_path / "set"), str(tmp_path / "s"), "mt80")
    convert(config)
    assert content(tmp_path / "s") == content(small_set[1])
    capsys.readouterr()
    convert(config)
    assert "is whole already" in printed(capsys)
    assert content(tmp_path / "s") == content(small_set[1])
    with pytest.raises(PwmError, match="limit: None -> 1"):
        convert(dataclasses.replace(config, limit=1))
    make_chunk(tmp_path / "set" / "chunk_9.pt", MT80, [2], 5, seed=99)
    with pytest.raises(PwmError, match=r"has chunk_9\.pt beside the files"):
        convert(config)


def test_a_directory_of_something_else_is_left_alone(small_set, tmp_path):
    source, store = small_set
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("mine")
    for to, where in (("store", source), ("tdmpc2", store)):
        with pytest.raises(PwmError, match="exists and is no store"):
            convert(ConvertConfig(str(where), str(tmp_path / "s"), "mt80", to=to, steps=4))
    assert content(tmp_path / "s") == {"thesis.tex": b"mine"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"to": "minecraft"}, "unknown to 'minecraft'"),
        ({"on_error": "ignore"}, "unknown on_error 'ignore'"),
        ({"limit": 0}, "limit=0 must be at least 1"),
        ({"suite": None}, "suite=mt80"),
        ({"suite": "mt30"}, "try suite=mt80"),
        ({"suite": "mt8"}, "did you mean 'mt80'"),
        ({"tasks": ["walker-rum"]}, "did you mean 'walker-run'"),
    ],
)
def test_settings_that_do_not_fit(small_set, tmp_path, change, sentence):
    settings = {"source": str(small_set[0]), "out": str(tmp_path / "s"), "suite": "mt80"}
    with pytest.raises(PwmError, match=sentence):
        convert(ConvertConfig(**{**settings, **change}))
    assert not list(tmp_path.iterdir())


def killed_at_call(config: ConvertConfig, name: str, number: int) -> bool:
    """Converts in a process that kills itself at its n-th call of ``os.<name>``, if it has one."""

    def run() -> None:
        calls = 0
        original = getattr(os, name)

        def call(*arguments: object, **keywords: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)

        setattr(os, name, call)
        convert(config)

    code = exit_code_of_fork(run)
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize(
    ("name", "stride", "least"),
    [
        ("replace", 4, 3),
        ("fsync", 17, 3),
        ("rename", 1, 1),
        pytest.param("replace", 1, 10, marks=pytest.mark.slow),
        pytest.param("fsync", 4, 10, marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_write_it_goes_on_to_the_same_store(
    small_set, tmp_path, name, stride, least
):
    source, reference = small_set
    kills, expected = 0, content(reference)
    for number in itertools.count(1, stride):
        out = tmp_path / str(number)
        config = ConvertConfig(str(source), str(out), "mt80")
        if not killed_at_call(config, name, number):
            break
        kills += 1
        if not out.exists():
            with pytest.raises(PwmError, match="not finished: give its command again"):
                EpisodeStore.open(out)
        convert(config)
        assert content(out) == expected
        shutil.rmtree(out)
    assert kills >= least


def kill_at_random_moments(source: Path, out: Path, kills: int, seed: int) -> int:
    """Converts with that many SIGKILLs on the way; how many struck an unfinished conversion."""
    config = ConvertConfig(str(source), str(out), "mt80")
    begun = time.perf_counter()
    convert(dataclasses.replace(config, out=str(out.with_name("undisturbed"))))
    duration = time.perf_counter() - begun
    draw = random.Random(seed)
    struck = 0
    for _ in range(kills):
        process = FORK.Process(target=convert, args=(config,))
        process.start()
        process.join(draw.uniform(0, duration / (kills + 1)))
        process.kill()
        process.join()
        struck += not out.exists()
    convert(config)
    return struck


@pytest.mark.slow  # the one above has every moment at which a file changes
def test_killed_at_random_moments_it_goes_on_to_the_same_store(mt80_set, tmp_path):
    struck = kill_at_random_moments(mt80_set[0], tmp_path / "s", kills=3, seed=0)
    assert struck >= 1
    assert content(tmp_path / "s") == content(tmp_path / "undisturbed") == content(mt80_set[1])


def begun(small_set, tmp_path) -> tuple[Path, ConvertConfig]:
    """A copy of the set whose first file is converted and whose second is half done."""
    source = tmp_path / "set"
    source.mkdir()
    for path in small_set[0].iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = ConvertConfig(str(source), str(tmp_path / "s"), "mt80")

    def run() -> None:
        original = EpisodeStore.append

        def append(store: EpisodeStore, *arguments: Any) -> None:
            original(store, *arguments)
            if "tdmpc2/chunk_1.pt" in store.sources:
                os.kill(os.getpid(), signal.SIGKILL)

        EpisodeStore.append = append  # type: ignore[method-assign]
        convert(config)

    assert exit_code_of_fork(run) == -signal.SIGKILL
    return source, config


def test_finished_files_are_not_read_again(small_set, tmp_path):
    source, config = begun(small_set, tmp_path)
    (source / "chunk_0.pt").unlink()
    convert(config)
    assert content(tmp_path / "s") == content(small_set[1])


def test_a_store_in_the_making_does_not_look_complete(small_set, tmp_path):
    begun(small_set, tmp_path)
    with pytest.raises(PwmError, match="not finished: give its command again"):
        EpisodeStore.open(tmp_path / "s")
    part = EpisodeStore.open(tmp_path / "s.unfinished")  # opened as what it is, it can be read
    assert 10 < sum(counts(part).values()) < 20
    assert not list(verify(part))


def test_a_begun_conversion_refuses_other_settings_and_files(small_set, tmp_path):
    source, config = begun(small_set, tmp_path)
    with pytest.raises(PwmError, match="limit: None -> 3"):
        convert(dataclasses.replace(config, limit=3))
    make_chunk(source / "chunk_7.pt", MT80, [2], 5, seed=77)
    with pytest.raises(PwmError, match=r"has chunk_7\.pt beside"):
        convert(config)
    (source / "chunk_7.pt").unlink()
    make_chunk(source / "chunk_1.pt", MT80, [2], 5, seed=77)
    with pytest.raises(PwmError, match=r"chunk_1\.pt has changed since"):
        convert(config)
    (source / "chunk_1.pt").unlink()
    with pytest.raises(PwmError, match=r"there is no file .*chunk_1\.pt"):
        convert(config)


def test_an_interrupt_stops_it_between_commits(small_set, tmp_path):
    source, reference = small_set

    def run() -> None:
        original = EpisodeStore.append

        def append(store: EpisodeStore, *arguments: Any) -> None:
            if "tdmpc2/chunk_1.pt" in store.sources:
                os.kill(os.getpid(), signal.SIGINT)
            original(store, *arguments)

        EpisodeStore.append = append  # type: ignore[method-assign]
        sys.exit(cli.main(["convert", f"source={source}", "suite=mt80", f"out={tmp_path}/s"]))

    assert exit_code_of_fork(run) == 128 + signal.SIGINT
    assert not (tmp_path / "s").exists()
    convert(ConvertConfig(str(source), str(tmp_path / "s"), "mt80"))
    assert content(tmp_path / "s") == content(reference)


def resident(name: str) -> int:
    """Bytes of this process, as Linux counts them under a name."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", status)[1])


def measured(source: Path, out: Path) -> tuple[int, int, float]:
    """Resident bytes at the peak of one file's conversion and of all, and the seconds of all."""
    one = out.with_name("one_file")
    one.mkdir()
    os.link(min(source.iterdir()), one / "chunk_0.pt")
    convert(ConvertConfig(str(one), str(one / "store"), "mt80"))
    before, started = resident("VmHWM"), time.perf_counter()
    convert(ConvertConfig(str(source), str(out), "mt80"))
    return before, resident("VmHWM"), time.perf_counter() - started


reads_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's figures of memory"
)


@dataclasses.dataclass
class Conversion:
    """What a conversion took: bytes of its files, resident bytes at the peak of one and of all."""

    sizes: list[int]
    before: int
    peak: int
    seconds: float

    @classmethod
    def measured(cls, source: Path, out: Path) -> Conversion:
        """Converts in a process of its own, whose memory is what the conversion needs."""
        sizes = [path.stat().st_size for path in source.iterdir()]
        return cls(sizes, *result_of_fork(measured, source, out))

    def require_bounded(self) -> None:
        """All files take at most one more than one file does, which is far from all of them."""
        allowed = max(self.sizes) + 2**26
        assert allowed < sum(self.sizes) / 2  # else this would prove nothing
        assert self.peak - self.before < allowed
        assert self.peak < max(self.sizes) + 2**30


@pytest.mark.slow
@reads_proc
def test_memory_is_bounded_by_one_file(tmp_path):
    source = make_set(tmp_path / "set", files=20, episodes=500, rows=101)
    Conversion.measured(source, tmp_path / "s").require_bounded()


@reads_proc
@pytest.mark.slow
def test_a_set_of_twenty_files_with_its_memory_and_twenty_kills(tmp_path, capsys):
    source = make_set(tmp_path / "set", files=20, episodes=2000, rows=101)
    whole = Conversion.measured(source, tmp_path / "whole")
    whole.require_bounded()
    struck = kill_at_random_moments(source, tmp_path / "s", kills=20, seed=1)
    assert struck >= 10
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    episodes = sum(counts(EpisodeStore.open(tmp_path / "s")).values())
    assert episodes == 40_000
    mega = [round(n / 1e6) for n in (max(whole.sizes), sum(whole.sizes), whole.before, whole.peak)]
    with capsys.disabled():
        print(
            f"\n20 files of {mega[0]} MB, {mega[1]} MB and {episodes:,} episodes in all: converted "
            f"in {whole.seconds:.1f} s; resident {mega[2]} MB at the peak of one file, {mega[3]} "
            f"MB of all; of 20 SIGKILLs {struck} struck an unfinished conversion, and the store is "
            "byte-identical"
        )


def test_the_command_line(small_set, tmp_path, capsys):
    source, reference = small_set
    words = ["convert", f"source={source}", "suite=mt80", f"out={tmp_path / 's'}"]
    assert cli.main(words) == 0
    assert content(tmp_path / "s") == content(reference)
    assert cli.main(["convert", "--help"]) == 0
    assert "on_error" in capsys.readouterr().out
    assert cli.main(["convert", f"source={source}"]) == 1
    assert "out=" in capsys.readouterr().err


def made_here(path: Path, suite: Suite, steps: dict[str, list[int]]) -> EpisodeStore:
    """A store as collecting makes it, of episodes of the given numbers of steps."""
    with EpisodeStore.create(path, suite) as store:
        store.add_source("test", {})
        for name, lengths in steps.items():
            episodes = [make_episode(suite[name], n, i) for i, n in enumerate(lengths)]
            for episode in episodes:
                episode.terminated[:] = False
            store.append(name, episodes, "test")
    return EpisodeStore.open(path)


def test_a_store_goes_to_files_and_back(tmp_path):
    suite = get_suite("mw-reach,mw-push")
    store = made_here(tmp_path / "s", suite, {"mw-reach": [100] * 3, "mw-push": [100] * 2})
    config = ConvertConfig(str(tmp_path / "s"), str(tmp_path / "f"), to="tdmpc2", files=2)
    files = sorted(path.name for path in convert(config).glob("*.pt"))
    assert files == ["chunk_0.pt", "chunk_1.pt"]
    for name in files:
        assert torch.load(tmp_path / "f" / name, weights_only=False).shape[1] == 101
    back = EpisodeStore.open(
        convert(ConvertConfig(str(tmp_path / "f"), str(tmp_path / "back"), suite.names))
    )
    assert counts(back) == {"mw-reach": 3, "mw-push": 2}
    order = {"mw-reach": [0, 2, 1], "mw-push": [0, 1]}  # pieces go to the files in turn
    for name, positions in order.items():
        for position, original in enumerate(positions):
            was, got = store.episode(name, original), back.episode(name, position)
            for field in ("obs", "action", "reward", "terminated"):
                np.testing.assert_array_equal(getattr(got, field), getattr(was, field))


def test_mt80_cuts_dmcontrol_into_pieces_of_100(tmp_path):
    store = made_here(
        tmp_path / "s",
        get_suite("walker-run,mw-push"),
        {"walker-run": [500, 500], "mw-push": [100]},
    )
    convert(ConvertConfig(str(tmp_path / "s"), str(tmp_path / "f"), "mt80", to="tdmpc2"))
    files = sorted((tmp_path / "f").glob("*.pt"))
    assert len(files) == 10  # as many as the most pieces of a task, 20 at most
    chunk = torch.load(tmp_path / "f" / "chunk_0.pt", weights_only=False)
    assert chunk["task"][:, 0].tolist() == [2, MT80.id("mw-push")]
    assert tuple(chunk["obs"].shape[1:]) == (101, 39)
    back = EpisodeStore.open(
        convert(ConvertConfig(str(tmp_path / "f"), str(tmp_path / "back"), "mt80"))
    )
    assert counts(back) == {"walker-run": 10, "mw-push": 1}
    whole = [store.episode("walker-run", i) for i in range(2)]
    for number in range(10):
        piece, source = back.episode("walker-run", number), whole[number // 5]
        first = 100 * (number % 5)
        np.testing.assert_array_equal(piece.obs, source.obs[first : first + 101])
        np.testing.assert_array_equal(piece.action, source.action[first : first + 100])
        np.testing.assert_array_equal(piece.reward, source.reward[first : first + 100])


def test_episodes_of_another_length_are_refused_or_skipped(tmp_path, capsys):
    made_here(tmp_path / "s", get_suite("mw-push"), {"mw-push": [100, 60, 100, 130]})
    config = ConvertConfig(str(tmp_path / "s"), str(tmp_path / "f"), "mt80", to="tdmpc2")
    with pytest.raises(PwmError, match="no multiples of 100 steps: 2 of mw-push"):
        convert(config)
    assert not (tmp_path / "f").exists()
    config.on_error = "skip"
    convert(config)
    assert "2 entries of 101 rows of 1 task in 2 files, 2 episodes skipped" in printed(capsys)


def test_terminations_are_written_if_there_are_any(tmp_path):
    suite = Suite("one", (SMALL,))
    for ends in (False, True):
        with EpisodeStore.create(tmp_path / f"s{ends}", suite) as store:
            store.add_source("test", {})
            episode = make_episode(SMALL, 20, 0)
            episode.terminated[:] = False
            episode.terminated[-1] = ends
            store.append("small", [episode], "test")
        out = tmp_path / f"f{ends}"
        convert(ConvertConfig(str(tmp_path / f"s{ends}"), str(out), to="tdmpc2"))
        assert ("terminated" in torch.load(out / "chunk_0.pt", weights_only=False)) == ends


def test_a_store_without_the_tasks_gives_no_files(tmp_path):
    made_here(tmp_path / "s", get_suite("mw-push,mw-reach"), {"mw-push": [100]})
    config = ConvertConfig(str(tmp_path / "s"), str(tmp_path / "f"), to="tdmpc2", tasks="mw-reach")
    with pytest.raises(PwmError, match="has no episode to convert"):
        convert(config)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_leftovers_without_a_record_are_replaced_but_nothing_else(tmp_path):
    made_here(tmp_path / "s", get_suite("mw-push"), {"mw-push": [100]})
    config = ConvertConfig(str(tmp_path / "s"), str(tmp_path / "f"), "mt80", to="tdmpc2")
    left = tmp_path / "f.unfinished"
    left.mkdir()
    (left / "chunk_5.pt").write_bytes(b"half")
    (left / "mine").touch()
    with pytest.raises(PwmError, match="holds mine"):
        convert(config)
    (left / "mine").unlink()
    assert names(convert(config)) == {"chunk_0.pt", "conversion.json"}
    assert not left.exists()


@pytest.fixture
def to_files(tmp_path) -> ConvertConfig:
    """A conversion of a store into three files."""
    made_here(tmp_path / "s", get_suite("mw-push"), {"mw-push": [100] * 6})
    out = str(tmp_path / "f")
    return ConvertConfig(str(tmp_path / "s"), out, "mt80", to="tdmpc2", files=3)


def stop_before(monkeypatch, number: int, signum: int) -> None:
    original, calls = pwm.interop.export_data.write_chunk, 0

    def stopped(*arguments: Any) -> None:
        nonlocal calls
        if calls == number:
            os.kill(os.getpid(), signum)
        calls += 1
        original(*arguments)

    monkeypatch.setattr("pwm.interop.export_data.write_chunk", stopped)


def test_files_that_were_written_are_not_written_again(to_files, tmp_path, monkeypatch, capsys):
    whole = convert(dataclasses.replace(to_files, out=str(tmp_path / "whole")))
    command = ["convert", f"source={to_files.source}", "suite=mt80", "to=tdmpc2", "files=3"]
    command += [f"out={to_files.out}"]
    with monkeypatch.context() as patch:
        stop_before(patch, 1, signal.SIGTERM)
        assert cli.main(command) == 128 + signal.SIGTERM
    assert "the 2 files written so far are kept" in " ".join(capsys.readouterr().err.split())
    left = tmp_path / "f.unfinished"
    made = {path: path.stat().st_ino for path in left.glob("chunk_*.pt")}
    assert len(made) == 2
    (left / "chunk_2.pt.tmp").write_bytes(b"half")
    assert cli.main(command) == 0
    assert {
        left / p.name: p.stat().st_ino for p in Path(to_files.out).glob("chunk_[01].pt")
    } == made
    assert content(Path(to_files.out)) == content(whole)
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "whole already" in " ".join(capsys.readouterr().err.split())


def test_files_in_the_making_refuse_other_settings_and_other_data(to_files, tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr("pwm.interop.export_data.publish", die)
        with pytest.raises(KeyError):
            convert(to_files)
    with pytest.raises(PwmError, match="files: 3 -> 2"):
        convert(dataclasses.replace(to_files, files=2))
    with pytest.raises(PwmError, match=r"f\.unfinished is of an earlier run and resume=never"):
        convert(dataclasses.replace(to_files, resume="never"))
    convert(to_files)
    with pytest.raises(PwmError, match=r"conversion\.json is of an earlier run and resume=never"):
        convert(dataclasses.replace(to_files, resume="never"))
    with pytest.raises(PwmError, match="steps: 100 -> 50"):
        convert(dataclasses.replace(to_files, steps=50))
    with EpisodeStore.open(to_files.source, "a") as store:
        store.append("mw-push", [store.episode("mw-push", 0)], next(iter(store.sources)))
    with pytest.raises(PwmError, match="data: "):
        convert(to_files)
    (Path(to_files.out) / "conversion.json").write_text("{")
    with pytest.raises(PwmError, match="damaged"):
        convert(to_files)


@pytest.mark.parametrize("to", ["store", "tdmpc2"])
def test_a_second_conversion_into_the_same_place_is_refused(to, to_files, small_set, tmp_path):
    """Its files would be deleted under the first one's hands."""
    config = to_files
    if to == "store":
        config = ConvertConfig(str(small_set[0]), str(tmp_path / "f"), "mt80")
    left = tmp_path / "f.unfinished"
    left.mkdir()
    with (
        DirectoryLock(left),
        pytest.raises(PwmError, match=f"being written by process {os.getpid()} on host"),
    ):
        convert(config)
    convert(config)


def test_a_result_that_cannot_get_its_name_is_kept(to_files, tmp_path, monkeypatch):
    original = pwm.interop.export_data._files_to_write

    def files(*arguments: Any) -> Iterator[tuple[Path, int]]:
        yield from original(*arguments)
        Path(to_files.out).mkdir()
        (Path(to_files.out) / "other").touch()

    monkeypatch.setattr("pwm.interop.export_data._files_to_write", files)
    with pytest.raises(PwmError, match="is whole and cannot be renamed"):
        convert(to_files)
    assert len(list((tmp_path / "f.unfinished").glob("*.pt"))) == 3
