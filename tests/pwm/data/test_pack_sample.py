from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from stores import LARGE, SMALL, SUITE, coded_store, make_episode, rewrite_manifest

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.data.episode import row_dtype
from pwm.data.inspection import open_checked
from pwm.data.pack_sample import (
    ROUNDING,
    SampleConfig,
    chosen_episodes,
    round_where_it_fits,
    sample,
)
from pwm.data.problems import BadData
from pwm.data.ranking import best_first
from pwm.data.splits import episodes_in_split
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """40 coded episodes of the small task, whose returns rise, and 30 short ones of the large."""
    path = tmp_path_factory.mktemp("data") / "store"
    return coded_store(path, {"small": [20] * 40, "large": [5] * 30})


@pytest.fixture
def packed(store, tmp_path):
    config = SampleConfig(str(store.path), str(tmp_path / "out"), episodes=25, whole=3, rows=7)
    return EpisodeStore.open(sample(config))


def files(path):
    return {f.name: f.read_bytes() for f in path.iterdir() if f.name != ".lock"}


def test_the_best_are_whole_and_the_others_pieces_of_all_qualities(store, packed):
    table = packed.episodes("small")
    assert len(table) == 25
    whole = table[table["is_piece"] == 0]
    rank = np.argsort(best_first(store, "small"))  # a coded episode's seed is its place
    assert sorted(rank[whole["seed"]]) == [0, 1, 2]
    assert (whole["length"] == 21).all()
    pieces = table[table["is_piece"] == 1]
    assert (pieces["length"] == 7).all()
    of_pieces = np.sort(rank[pieces["seed"]])
    assert len(set(of_pieces)) == 22
    assert {3, 39} <= set(of_pieces)  # the best after the whole ones, and the worst
    assert np.diff(of_pieces).max() <= 2
    assert (table["return"] == store.episodes("small")["return"][table["seed"]]).all()


def test_rows_are_those_of_the_store_at_all_times_of_an_episode(store, packed):
    begins = set()
    for i, entry in enumerate(packed.episodes("small")):
        piece, original = packed.episode("small", i), store.episode("small", int(entry["seed"]))
        begin = int(piece.obs[0, 0])
        assert piece.obs.tobytes() == original.obs[begin : begin + len(piece.obs)].tobytes()
        assert (piece.reward == original.reward[begin:][: len(piece.reward)]).all()
        begins.add(begin)
    assert min(begins) == 0
    assert max(begins) == 14
    assert len(begins) > 10


def test_short_episodes_stay_whole(packed):
    assert not packed.episodes("large")["is_piece"].any()


def test_no_whole_episode_is_held_out(packed):
    table = packed.episodes("small")
    held_out = episodes_in_split(len(table), "held_out")
    assert held_out.any()
    assert table["is_piece"][held_out].all()


def test_a_sample_repeats_bit_for_bit(store, packed, tmp_path):
    config = SampleConfig(str(store.path), str(tmp_path / "again"), None, 25, 3, 7)
    again = sample(config)
    assert files(again) == files(packed.path)
    config.seed, config.out = 1, str(tmp_path / "other")
    assert files(sample(config)) != files(again)


def test_the_same_command_does_nothing_twice_and_another_is_refused(store, packed):
    config = SampleConfig(str(store.path), str(packed.path), None, 25, 3, 7)
    before = (packed.path / "manifest.json").stat().st_mtime_ns
    sample(config)
    assert (packed.path / "manifest.json").stat().st_mtime_ns == before
    config.rows = 8
    with pytest.raises(PwmError, match="not empty"):
        sample(config)


def test_what_a_killed_sampling_left_is_replaced(store, packed):
    whole = files(packed.path)
    (packed.path / "manifest.json").unlink()
    (packed.path / "small.safetensors.xz").write_bytes(b"half")
    sample(SampleConfig(str(store.path), str(packed.path), None, 25, 3, 7))
    assert files(packed.path) == whole


def test_a_packed_store_is_whole_and_says_where_it_is_from(store, packed, capsys):
    assert main(["data", "verify", str(packed.path)]) == 0
    assert main(["data", "info", str(packed.path)]) == 0
    assert "coded" in capsys.readouterr().out
    assert packed.sources["test"]["sample"]["of"] == store.digest


@pytest.mark.parametrize("position", [20, 200, -20])
def test_damage_is_found(packed, position, capsys):
    file = packed.path / "small.safetensors.xz"
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)
    assert main(["data", "verify", str(packed.path)]) == 1
    assert "small.safetensors.xz" in capsys.readouterr().out
    bad = BadData("skip")
    assert not open_checked(packed.path, bad).count("small")
    assert open_checked(packed.path, bad).count("large")


def test_another_sample_s_file_in_its_place_is_found(store, packed, tmp_path):
    config = SampleConfig(str(store.path), str(tmp_path / "b"), None, 25, 3, 7, seed=1)
    shutil.copy(sample(config) / "small.safetensors.xz", packed.path)
    with pytest.raises(PwmError, match="the bytes differ"):
        open_checked(packed.path, BadData())


def test_a_missing_file_is_one_sentence(packed):
    (packed.path / "large.safetensors.xz").unlink()
    with pytest.raises(PwmError, match="task large: the file cannot be read"):
        EpisodeStore.open(packed.path)


def test_a_link_out_of_the_store_is_refused(packed, tmp_path):
    file = packed.path / "large.safetensors.xz"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PwmError, match="link out of the store"):
        EpisodeStore.open(packed.path)


def test_nothing_is_appended_to_it(packed):
    with pytest.raises(PwmError, match="packed store"):
        EpisodeStore.open(packed.path, "a")
    EpisodeStore.open(packed.path)  # and the lock was given back


def test_a_manifest_says_packed_by_true_or_false(packed):
    rewrite_manifest(packed.path, lambda document: document.update(packed="yes"))
    with pytest.raises(PwmError, match=r"Expected `bool`, got `str`.*packed"):
        EpisodeStore.open(packed.path)


def test_start_states_and_demonstrations_come_from_it(store, packed):
    pool = StatePool.draw(packed, "small", 10_000, 0)
    assert len(pool) == 21 * 6 + 3 * 20  # one of 25 is held out
    best = StatePool.draw(packed, "small", 10_000, 0, best=3 / 24)
    assert set(best.obs[:, 1].tolist()) == set(best_first(store, "small")[:3].tolist())
    assert len(best) == 3 * 20


@pytest.mark.slow
def test_extraction_and_cloning_take_it(toy, toy_world_model, tmp_path):
    out = tmp_path / "sample"
    assert main(["sample", f"data={toy.data}", f"out={out}", "whole=2", "rows=11"]) == 0
    policies = tmp_path / "policies"
    words = [*toy.extract(toy_world_model, policies, "finetune.enabled=true"), f"data={out}"]
    assert main(words) == 0
    words = [
        "evaluate", f"policy={policies}", f"data={out}", f"out={tmp_path / 'run'}", "episodes=1",
        "tasks=[pendulum-swingup]", "baselines=[bc_best,data_mean,data_best]",
        "cloning.updates=2", "workers=1",
    ]  # fmt: skip
    assert main(words) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    best = EpisodeStore.open(toy.data).episodes("pendulum-swingup")["return"].max()
    found = results["baselines"]["data_best"]["tasks"]["pendulum-swingup"]["return"]
    assert found == pytest.approx(best)


def test_columns_are_rounded_only_where_that_does_little():
    rng = np.random.default_rng(0)
    rows = np.zeros(60, row_dtype(LARGE))
    starts = np.array([0, 30])
    rows["obs"][:, 0] = rng.standard_normal(60)
    rows["obs"][:, 1] = 50 + np.cumsum(rng.normal(0, 0.05, 60))  # an angle after many turns
    rows["obs"][:, 2] = 1e6 * rng.standard_normal(60)  # beyond float16
    rows["obs"][:, 3] = 0.1  # does not move
    rows["obs"][:, 4] = np.where(np.arange(60) < 30, 0.1, 0.7)  # moves between episodes alone
    rows["action"] = rng.uniform(-1, 1, (60, 2))
    rows["reward"] = rng.standard_normal(60)
    rows["action"][starts] = rows["reward"][starts] = np.nan
    before = rows.copy()
    round_where_it_fits(rows, starts)
    moved = np.abs(rows["obs"] - before["obs"]).max(0)
    assert moved[0] > 0
    assert moved[0] <= ROUNDING * np.sqrt(np.square(np.diff(before["obs"][:, 0])).mean())
    assert not moved[1:].any()
    assert (rows["action"][1] == before["action"][1].astype(np.float16)).all()
    assert np.isnan(rows["action"][starts]).all()
    assert (rows["reward"] == before["reward"])[1:30].all()


@pytest.mark.parametrize(
    ("count", "whole", "best", "others"),
    [
        (4, 1, [4], [3, 1, 0]),
        (5, 0, [], [4, 3, 2, 1, 0]),
        (9, 9, [4, 3, 2, 1, 0], []),
        (1, 1, [4], []),
        (2, 0, [], [4, 0]),
    ],
)
def test_choice_of_episodes(count, whole, best, others):
    found = chosen_episodes(np.arange(5)[::-1], count, whole)
    assert [list(part) for part in found] == [best, others]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"whole": 999}, "whole=999 must be at most episodes=120"),
        ({"rows": 1}, "rows=1 must be at least 2"),
        ({"tasks": ["walker-run"]}, "has no episodes of walker-run"),
        ({"data": "nowhere"}, "there is no nowhere"),
        ({"episodes": 0, "whole": 0}, "episodes=0 must be at least 1"),
    ],
)
def test_mistakes_are_one_sentence(store, tmp_path, changed, message):
    settings = {"data": str(store.path), "out": str(tmp_path / "out"), **changed}
    with pytest.raises(PwmError, match=message):
        sample(SampleConfig(**settings))
    assert not (tmp_path / "out").exists()


def test_bad_values_are_not_sampled(tmp_path):
    with EpisodeStore.create(tmp_path / "s", SUITE) as store:
        store.add_source("test", {})
        store.append("small", [make_episode(SMALL, 9, i) for i in range(3)], "test")
    file = tmp_path / "s" / "small" / "rows.bin"
    data = bytearray(file.read_bytes())
    data[24 * 15 : 24 * 15 + 4] = np.float32(np.nan).tobytes()
    file.write_bytes(data)
    with pytest.raises(PwmError, match="task small, episode 1"):
        sample(SampleConfig(str(tmp_path / "s"), str(tmp_path / "out")))
