from __future__ import annotations

import numpy as np
import pytest
import torch
from stores import SMALL, SUITE, coded_store, make_episode
from tdmpc2_files import CHUNK_2023, chunk_fields, make_chunk, save_chunk
from tensordict import TensorDict

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, get_suite
from pwm.data.inspection import unscorable
from pwm.data.store import EpisodeStore
from pwm.interop.tdmpc2_data import Chunk, Pieces, find_files, write_chunk

MT30, MT80 = SUITES["mt30"], SUITES["mt80"]
IDS = [2, 35, 2]  # walker-run (24 and 6), mw-button-press-wall (39 and 4), walker-run
ROWS = 6


def fields(**changes):
    made = chunk_fields(MT80, IDS, ROWS, seed=3)
    for name, value in changes.items():
        if value is None:
            del made[name]
        else:
            made[name] = value
    return made


def open_chunk(tmp_path, made, suite=MT80) -> Chunk:
    return Chunk(save_chunk(tmp_path / "chunk_0.pt", made), suite)


def test_files_are_read_in_numeric_order(tmp_path):
    for name in ("chunk_10.pt", "chunk_2.pt", "chunk_0.pt", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files(tmp_path)] == [
        "chunk_0.pt",
        "chunk_2.pt",
        "chunk_10.pt",
    ]
    assert find_files(tmp_path / "chunk_2.pt") == [tmp_path / "chunk_2.pt"]


def test_no_files_is_an_error(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PwmError, match=r"has no \.pt file"):
            find_files(source)


def test_a_file_of_2023_gives_unpadded_episodes():
    chunk = Chunk(CHUNK_2023, MT30)
    expected = torch.load(CHUNK_2023, weights_only=False)
    assert (chunk.episodes, chunk.rows) == (6, 41)
    assert chunk.task_ids().tolist() == [0, 3, 3, 7, 29, 26]
    for name, positions in {"cheetah-run": [1, 2], "pendulum-spin": [4]}.items():
        task = MT30[name]
        block = chunk.read(task, np.array(positions))
        assert not block.faults
        assert not block.terminated.any()
        for i, position in enumerate(positions):
            source = expected[position]
            np.testing.assert_array_equal(block.obs[i], source["obs"][:, : task.obs_dim])
            np.testing.assert_array_equal(block.action[i], source["action"][1:, : task.action_dim])
            np.testing.assert_array_equal(block.reward[i], source["reward"][1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_newer_files_say_where_an_episode_terminated(tmp_path, dtype):
    flags = torch.zeros(3, ROWS)
    flags[1, -1] = 1
    if dtype == torch.float32:
        flags[:, 0] = torch.nan
    chunk = open_chunk(tmp_path, fields(terminated=flags.to(dtype)))
    block = chunk.read(MT80["mw-button-press-wall"], np.array([1]))
    assert block.terminated[0].tolist() == [False] * (ROWS - 2) + [True]
    assert not chunk.read(MT80["walker-run"], np.array([0, 2])).terminated.any()


def test_other_number_types_are_converted(tmp_path):
    made = fields()
    made = {
        "obs": made["obs"].double(),
        "action": made["action"].half(),
        "reward": made["reward"],
        "task": made["task"].long(),
    }
    block = open_chunk(tmp_path, made).read(MT80["walker-run"], np.array([0]))
    assert {block.obs.dtype, block.action.dtype, block.reward.dtype} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(block.obs[0], made["obs"][0, :, :24].float())


def plain(made):
    return dict(made)


def by_episode(made):
    return [{name: tensor[i] for name, tensor in made.items()} for i in range(len(IDS))]


def tensordict_by_episode(made):
    return [TensorDict(episode, [ROWS]) for episode in by_episode(made)]


@pytest.mark.parametrize("form", [plain, by_episode, tensordict_by_episode])
def test_plain_dicts_and_lists_of_episodes_are_read_as_tensordicts(form, tmp_path):
    made = fields()
    expected = open_chunk(tmp_path, made)
    torch.save(form(made), tmp_path / "other.pt")
    chunk = Chunk(tmp_path / "other.pt", MT80)
    np.testing.assert_array_equal(chunk.task_ids(), IDS)
    task, which = MT80["walker-run"], np.array([0, 2])
    for name in ("obs", "action", "reward"):
        np.testing.assert_array_equal(
            getattr(chunk.read(task, which), name), getattr(expected.read(task, which), name)
        )


def test_numbers_in_an_axis_of_one_are_read_as_without_it(tmp_path):
    made = fields()
    wide = {**made, "reward": made["reward"].unsqueeze(-1), "task": made["task"].unsqueeze(-1)}
    torch.save(TensorDict(wide, [3, ROWS]), tmp_path / "wide.pt")
    block = Chunk(tmp_path / "wide.pt", MT80).read(MT80["walker-run"], np.array([0, 2]))
    np.testing.assert_array_equal(block.reward, made["reward"][[0, 2], 1:])


def test_a_file_without_task_ids_is_of_a_suite_of_one_task(tmp_path):
    walker = get_suite("walker-run")
    made = chunk_fields(walker, [0, 0], ROWS, seed=3)
    del made["task"]
    chunk = open_chunk(tmp_path, made, walker)
    np.testing.assert_array_equal(chunk.task_ids(), [0, 0])
    block = chunk.read(walker["walker-run"], np.array([1]))
    np.testing.assert_array_equal(block.action[0], made["action"][1, 1:])
    with pytest.raises(PwmError, match=r"no tensor 'task'; it holds .*; name its one task as su"):
        open_chunk(tmp_path, made, MT80)


def change(name, index, value):
    """A fault in episode 2, a walker-run."""

    def apply(made):
        made[name][(2, *index)] = value

    return apply


def test_row_0_of_action_and_reward_means_nothing(tmp_path):
    made = fields(terminated=torch.zeros(3, ROWS))
    for value in (torch.nan, torch.inf, 7.0, 0.0):
        for name in ("action", "reward", "terminated"):
            made[name][:, 0] = value
        block = open_chunk(tmp_path, made).read(MT80["walker-run"], np.array([0, 2]))
        assert not block.faults
        np.testing.assert_array_equal(block.reward, made["reward"][[0, 2], 1:])


@pytest.mark.parametrize(
    ("apply", "fault"),
    [
        (change("obs", (0, 3), torch.nan), "NaN or infinite observations"),
        (change("obs", (ROWS - 1, 0), torch.inf), "NaN or infinite observations"),
        (change("obs", (2, 38), torch.nan), "NaN or infinite observations"),
        (change("action", (1, 0), torch.nan), "NaN or infinite actions or rewards"),
        (change("reward", (ROWS - 1,), -torch.inf), "NaN or infinite actions or rewards"),
        (change("obs", (0, 24), 1e-9), "observations that are not zero beyond entry 24"),
        (change("action", (3, 5), 1.01), r"actions outside \[-1, 1\]"),
        (change("terminated", (2,), 0.5), "termination that is neither"),
    ],
)
def test_faults_are_found_in_the_episode_that_has_them(tmp_path, apply, fault):
    made = fields(terminated=torch.zeros(3, ROWS))
    apply(made)
    faults = open_chunk(tmp_path, made).read(MT80["walker-run"], np.array([0, 2])).faults
    assert list(faults) == [1]
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(faults[1])


def test_action_padding_must_be_zero(tmp_path):
    made = fields()
    made["action"][1, 2, 4] = 0.5
    block = open_chunk(tmp_path, made).read(MT80["mw-button-press-wall"], np.array([1]))
    assert block.faults == {0: "actions that are not zero beyond entry 4"}


@pytest.mark.parametrize(
    ("made", "suite", "sentence"),
    [
        (fields(reward=None), MT80, "reward"),
        (fields(task=None), MT80, "no tensor 'task'"),
        (fields(task=torch.zeros(3, ROWS)), MT80, r"task of torch\.float32"),
        (fields(obs=torch.zeros(3, ROWS, 39, dtype=torch.int64)), MT80, "obs of torch.int64"),
        (fields(), MT30, "try suite=mt80"),
        (fields(), get_suite("walker-run"), "try suite=mt80"),
        (chunk_fields(MT30, [0], ROWS, 1), MT80, "try suite=mt30"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, made, suite, sentence):
    if "reward" not in made:
        made["reward"] = torch.zeros(3, ROWS, 2)
    from tensordict import TensorDict

    torch.save(TensorDict(made, batch_size=made["obs"].shape[:2]), tmp_path / "chunk_0.pt")
    with pytest.raises(PwmError, match=sentence):
        Chunk(tmp_path / "chunk_0.pt", suite)


def test_plain_tensors_whose_actions_may_be_those_of_their_rows_are_no_such_file(tmp_path):
    made = fields()
    made["action"][:, 0] = 0
    torch.save(made, tmp_path / "chunk_0.pt")
    with pytest.raises(PwmError, match="holds no TensorDict"):
        Chunk(tmp_path / "chunk_0.pt", MT80)


def test_task_ids_must_be_of_the_suite_and_constant(tmp_path):
    made = fields()
    made["task"][1] = 80
    with pytest.raises(
        PwmError, match="episode 1 has task id 80, and suite 'mt80' has ids 0 to 79"
    ):
        open_chunk(tmp_path, made).task_ids()
    made["task"][1] = -1
    with pytest.raises(PwmError, match="task id -1"):
        open_chunk(tmp_path, made).task_ids()
    made = fields()
    made["task"][2, 3] = 5
    with pytest.raises(PwmError, match="changes within episode 2"):
        open_chunk(tmp_path, made).task_ids()


def test_pieces_and_unknown_success_have_no_score(tmp_path):
    tasks = {name: MT80[name] for name in ("walker-run", "mw-push", "mw-reach")}
    store = EpisodeStore.create(tmp_path / "s", get_suite(list(tasks)))
    store.add_source("whole", {"success_known": False, "pieces_of_episodes": []})
    store.add_source("cut", {"success_known": False, "pieces_of_episodes": ["walker-run"]})
    store.add_source("collected", {"made_by": "pwm collect"})
    store.append("walker-run", [make_episode(tasks["walker-run"], 3)], "whole")
    store.append("mw-reach", [make_episode(tasks["mw-reach"], 3)], "collected")
    assert [unscorable(store, task) for task in tasks.values()] == [None] * 3
    store.append("walker-run", [make_episode(tasks["walker-run"], 3)], "cut")
    store.append("mw-push", [make_episode(tasks["mw-push"], 3)], "whole")
    found = [unscorable(store, task) for task in tasks.values()]
    assert found == ["pieces of episodes", "episodes whose success is not known", None]


def test_episodes_are_cut_into_pieces_that_share_a_row(tmp_path):
    store = coded_store(tmp_path / "s", {"small": [4, 6, 2, 3]})
    table = Pieces.of(store, SMALL, steps=2, limit=None)
    # episodes begin at rows 0, 5, 12 and 15; the last has three steps
    assert table.first_rows.tolist() == [0, 2, 5, 7, 9, 12]
    assert table.unfit == 1
    assert Pieces.of(store, SMALL, steps=2, limit=1).first_rows.tolist() == [0, 2]
    assert not len(Pieces.of(store, SUITE["large"], steps=2, limit=None).first_rows)


def test_a_written_file_is_what_td_mpc2_loads(tmp_path):
    store = coded_store(tmp_path / "s", {"small": [4, 2], "large": [2]})
    pieces = [Pieces.of(store, task, 2, None) for task in SUITE]
    entries = [(piece.task, int(row)) for piece in pieces for row in piece.first_rows]
    path = tmp_path / "chunk_0.pt"
    write_chunk(path, store, entries, SUITE, 2, terminated=False)
    loaded = torch.load(path, weights_only=False)
    assert loaded.shape == (4, 3)
    assert {name: (v.dtype, tuple(v.shape)) for name, v in loaded.items()} == {
        "obs": (torch.float32, (4, 3, 5)),
        "action": (torch.float32, (4, 3, 2)),
        "reward": (torch.float32, (4, 3)),
        "task": (torch.int32, (4, 3)),
    }
    assert loaded["task"][:, 0].tolist() == [0, 0, 0, 1]
    assert loaded["action"][:, 0].isnan().all()
    assert loaded["reward"][:, 0].isnan().all()
    assert not loaded["action"][:, 1:].isnan().any()
    # rows of the first episode: 0 1 2, then 2 3 4
    assert loaded["obs"][:2, :, 0].tolist() == [[0, 1, 2], [2, 3, 4]]
    assert loaded["reward"][:2, 1:].tolist() == [[1, 2], [3, 4]]
    torch.testing.assert_close(loaded["action"][0, 1:, 0], torch.tensor([0.001, 0.002]))
    assert not loaded["obs"][:3, :, 3:].any()
    assert not loaded["action"][:3, 1:, 1:].any()
    # what its buffer does with an episode and with all of them
    loaded["episode"] = torch.arange(4).unsqueeze(-1).expand(-1, 3)
    assert loaded.reshape(12)["obs"].shape == (12, 5)
    assert loaded[0]["reward"].shape == (3,)


def test_terminations_are_written_where_asked_for(tmp_path):
    episode = make_episode(SMALL, 2, 1)
    episode.terminated[:] = [False, True]
    with EpisodeStore.create(tmp_path / "s", SUITE) as store:
        store.add_source("t", {})
        store.append("small", [episode], "t")
        write_chunk(tmp_path / "a.pt", store, [(SMALL, 0)], SUITE, 2, terminated=True)
    flags = torch.load(tmp_path / "a.pt", weights_only=False)["terminated"]
    assert flags[0, 0].isnan()
    assert flags[0, 1:].tolist() == [0, 1]
    assert not (tmp_path / "a.pt.tmp").exists()


def test_a_chunk_of_all_tasks_is_read_back(tmp_path):
    ids = list(range(80))
    made = chunk_fields(MT80, ids, 4, seed=9)
    chunk = Chunk(make_chunk(tmp_path / "a.pt", MT80, ids, 4, seed=9), MT80)
    for i, task in enumerate(MT80):
        block = chunk.read(task, np.array([i]))
        assert not block.faults
        np.testing.assert_array_equal(block.obs[0], made["obs"][i, :, : task.obs_dim])
        assert block.action.shape == (1, 3, task.action_dim)
