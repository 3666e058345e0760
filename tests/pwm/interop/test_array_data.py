"""Plain arrays of one task: HDF5 in the layouts of D4RL and robomimic, npz, dicts and lists."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from pwm.cli import main as cli
from pwm.core.errors import PwmError
from pwm.data.store import EpisodeStore
from pwm.interop.conversion import ConvertConfig
from pwm.interop.convert import convert

h5py = pytest.importorskip("h5py")

LENGTHS = (5, 8, 3)
TASK = """
name: gym-pendulum
env_id: Pendulum-v1
obs_dim: 3
action_dim: 1
episode_length: 8
score: {min: -1500, max: 0}
"""


class Made:
    """Three episodes with all observations, torques in [-2, 2], as the environment takes them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.obs = [rng.standard_normal((n + 1, 3)).astype(np.float32) for n in LENGTHS]
        self.action = [rng.uniform(-2, 2, (n, 1)).astype(np.float32) for n in LENGTHS]
        self.reward = [rng.standard_normal(n).astype(np.float32) for n in LENGTHS]
        self.terminated = [np.arange(n) == (n - 1 if n == 3 else -1) for n in LENGTHS]

    def d4rl(self) -> dict[str, np.ndarray]:
        """One table; the first two episodes are cut by a time limit, the last terminates."""
        ends = np.concatenate([np.arange(n) == n - 1 for n in LENGTHS])
        terminals = np.concatenate(self.terminated)
        return {
            "observations": np.concatenate([obs[:-1] for obs in self.obs]),
            "next_observations": np.concatenate([obs[1:] for obs in self.obs]),
            "actions": np.concatenate(self.action),
            "rewards": np.concatenate(self.reward),
            "terminals": terminals,
            "timeouts": ends & ~terminals,
        }


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "pendulum.yaml"
    path.write_text(TASK)
    return path


def save_h5(path: Path, groups: dict[str, dict[str, np.ndarray]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, arrays in groups.items():
            for key, array in arrays.items():
                file[f"{name}/{key}"] = array
    return path


def converted(source: Path, task: Path, **settings: object) -> EpisodeStore:
    out = source.with_name("store")
    return EpisodeStore.open(convert(ConvertConfig(str(source), str(out), str(task), **settings)))


def assert_same(store: EpisodeStore, made: Made, lost: int = 0, scale: float = 2.0) -> None:
    """Every number is where it was, but for ``lost`` last steps of each episode."""
    assert store.count("gym-pendulum") == len(LENGTHS)
    for number, length in enumerate(LENGTHS):
        episode, kept = store.episode("gym-pendulum", number), length - lost
        np.testing.assert_array_equal(episode.obs, made.obs[number][: kept + 1])
        np.testing.assert_allclose(episode.action, made.action[number][:kept] / scale, rtol=1e-6)
        np.testing.assert_array_equal(episode.reward, made.reward[number][:kept])
        np.testing.assert_array_equal(episode.terminated, made.terminated[number][:kept])


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_a_table_of_d4rl_is_cut_where_episodes_end(kind, made, task, tmp_path):
    path = tmp_path / f"pendulum.{kind}"
    if kind == "npz":
        np.savez(path, **made.d4rl())
    else:
        save_h5(path, {".": made.d4rl(), "infos": {"qpos": np.zeros((16, 2))}})
    store = converted(path, task)
    assert_same(store, made)
    assert list(store.sources["arrays"]["files"]) == [path.name]
    assert store.sources["arrays"]["action_bounds"] == [[-2.0], [2.0]]


def test_without_the_next_observations_the_last_steps_are_left_out_and_said(
    made, task, tmp_path, capsys
):
    table = made.d4rl()
    del table["next_observations"]
    assert_same(converted(save_h5(tmp_path / "p.hdf5", {".": table}), task), made, lost=1)
    told = " ".join(capsys.readouterr().err.split())
    assert "The last step of 3 episodes is left out, 1 of them terminations" in told


def test_without_timeouts_the_tasks_length_cuts(made, task, tmp_path):
    table = made.d4rl()
    del table["timeouts"], table["next_observations"]
    store = converted(save_h5(tmp_path / "p.hdf5", {".": table}), task)
    lengths = [len(store.episode("gym-pendulum", i).action) for i in range(2)]
    assert lengths == [7, 7]  # no flag ends the first episode of 5 steps, and the task has 8


def test_an_episode_ends_where_the_next_row_is_not_what_followed(made, task, tmp_path):
    table = made.d4rl()
    del table["timeouts"]
    store = converted(save_h5(tmp_path / "p.hdf5", {".": table}), task)
    for index, obs in enumerate(made.obs):
        np.testing.assert_array_equal(store.episode("gym-pendulum", index).obs, obs)

    order = np.random.default_rng(1).permutation(len(table["actions"]))
    shuffled = {name: values[order] for name, values in table.items()}
    with pytest.raises(PwmError, match="not in the order of time"):
        converted(save_h5(tmp_path / "shuffled.hdf5", {".": shuffled}), task)


def test_a_file_that_is_there_twice_is_refused(made, task, tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        save_h5(tmp_path / "two" / f"{name}.hdf5", {".": made.d4rl()})
    with pytest.raises(PwmError, match="hold the same bytes"):
        converted(tmp_path / "two", task)


def test_success_that_the_file_does_not_know_is_not_known(made, task, tmp_path):
    table = made.d4rl()
    table["success"] = np.zeros(sum(LENGTHS))
    table["success"][4], table["success"][6], table["success"][-1] = 1, np.nan, 0.3
    store = converted(save_h5(tmp_path / "p.hdf5", {".": table}), task)
    episodes = [store.episode("gym-pendulum", i) for i in range(3)]
    assert episodes[0].success.tolist() == [False] * 4 + [True]
    assert [episode.success for episode in episodes[1:]] == [None, None]


def test_actions_of_one_number_need_no_second_axis(made, task, tmp_path):
    table = made.d4rl()
    table["actions"] = table["actions"][:, 0]
    store = converted(save_h5(tmp_path / "p.hdf5", {".": table}), task)
    np.testing.assert_allclose(
        store.episode("gym-pendulum", 0).action, made.action[0] / 2, rtol=1e-6
    )


def test_demonstrations_of_robomimic(made, task, tmp_path, capsys):
    groups = {
        f"data/demo_{10 * number + 2}": {  # 2, 12, 22: in the order of their numbers
            "obs/angle": made.obs[number][:-1, :2],
            "obs/speed": made.obs[number][:-1, 2:],
            "obs/camera": np.zeros((length, 4, 4, 3), np.uint8),
            "next_obs/angle": made.obs[number][1:, :2],
            "next_obs/speed": made.obs[number][1:, 2:],
            "next_obs/camera": np.zeros((length, 4, 4, 3), np.uint8),
            "actions": made.action[number].astype(np.float64),
            "rewards": made.reward[number][:, None],
            "terminals": made.terminated[number].astype(np.int64),
            "states": np.zeros((length, 9)),
            "dones": (np.arange(length) == length - 1).astype(np.int64),
        }
        for number, length in enumerate(LENGTHS)
    }
    path = save_h5(tmp_path / "low_dim.hdf5", groups)
    assert_same(converted(path, task), made)
    assert "Observations are angle, speed, in this order." in capsys.readouterr().err
    swapped = converted(
        path.rename(tmp_path / "other.hdf5").rename(_folder(tmp_path) / "x.hdf5"),
        task,
        obs_keys=["speed", "angle"],
    )
    np.testing.assert_array_equal(
        swapped.episode("gym-pendulum", 1).obs, np.roll(made.obs[1], 1, axis=1)
    )
    with pytest.raises(PwmError, match=r"observations angle \(2\), 2 numbers .* has 3; choose"):
        converted(_folder(tmp_path) / "x.hdf5", task, obs_keys=["angle"])
    with pytest.raises(PwmError, match="no observation tilt; it has angle, camera, speed"):
        converted(_folder(tmp_path) / "x.hdf5", task, obs_keys=["tilt"])


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir(exist_ok=True)
    return tmp_path / "more"


def test_a_directory_of_files_is_read_in_the_order_of_their_numbers(made, task, tmp_path):
    folder = _folder(tmp_path)
    for number in range(3):
        np.savez(
            folder / f"ep_{9 + number}.npz",
            obs=made.obs[number],
            action=made.action[number],
            reward=made.reward[number],
            terminated=made.terminated[number],
        )
    assert_same(converted(folder, task), made)


def test_actions_of_a_plain_dict_are_those_chosen_in_their_rows(made, task, tmp_path):
    """Unless they begin with NaN, as those of TD-MPC2's files that led to their rows."""
    table = {
        "obs": np.stack([made.obs[1][:-1]] * 2),
        "next_obs": np.stack([made.obs[1][1:]] * 2),
        "action": np.stack([made.action[1]] * 2),
        "reward": np.stack([made.reward[1]] * 2)[..., None],
    }
    torch.save({name: torch.as_tensor(array) for name, array in table.items()}, tmp_path / "a.pt")
    episode = converted(tmp_path / "a.pt", task).episode("gym-pendulum", 1)
    np.testing.assert_array_equal(episode.obs, made.obs[1])
    np.testing.assert_allclose(episode.action, made.action[1] / 2, rtol=1e-6)
    np.testing.assert_array_equal(episode.reward, made.reward[1])


def listed(made: Made, form: str) -> object:
    fields = [
        {
            "obs": torch.as_tensor(obs),
            "action": torch.cat([torch.full((1, 1), torch.nan), torch.as_tensor(action)]),
            "reward": torch.cat([torch.full((1,), torch.nan), torch.as_tensor(reward)]),
            "terminated": torch.cat([torch.zeros(1), torch.as_tensor(ended).float()]),
        }
        for obs, action, reward, ended in zip(
            made.obs, made.action, made.reward, made.terminated, strict=True
        )
    ]
    if form == "dict of lists":
        return {name: [episode[name] for episode in fields] for name in fields[0]}
    if form == "list of TensorDicts":
        return [TensorDict(episode, [len(episode["obs"])]) for episode in fields]
    return {"episodes": fields} if form == "dict of a list" else fields


@pytest.mark.parametrize(
    "form", ["list of dicts", "list of TensorDicts", "dict of lists", "dict of a list"]
)
def test_episodes_of_several_lengths_in_lists(form, made, task, tmp_path):
    torch.save(listed(made, form), tmp_path / "a.pt")
    assert_same(converted(tmp_path / "a.pt", task), made)


@pytest.mark.parametrize("version", [2, 3])
def test_a_dataset_of_lerobot(version, made, task, tmp_path, capsys):
    """Version 2 has a file an episode, version 3 several episodes in one."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parts = [
        pa.table(
            {
                "observation.state": pa.array(
                    list(made.obs[number][:-1]), pa.list_(pa.float32(), 3)
                ),
                "observation.image": [{"bytes": b"", "path": "a.png"}] * length,
                "action": pa.array(list(made.action[number]), pa.list_(pa.float32())),
                "next.reward": made.reward[number],
                "next.done": np.arange(length) == length - 1,
                "episode_index": np.full(length, number),
                "frame_index": np.arange(length),
            }
        )
        for number, length in enumerate(LENGTHS)
    ]
    folder = tmp_path / "set"
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text("{}")
    files = {f"episode_{i:06d}": part for i, part in enumerate(parts)}
    if version == 3:
        files = {"file-000": pa.concat_tables(parts[:2]), "file-001": parts[2]}
    for name, table in files.items():
        parquet.write_table(table, folder / "data" / "chunk-000" / f"{name}.parquet")
    store = converted(folder, task)
    made.terminated = [np.zeros(n, bool) for n in LENGTHS]  # which LeRobot does not say
    assert_same(store, made, lost=1)
    assert "The last step of 3 episodes is left out" in capsys.readouterr().err


def test_normalized_actions_stay_as_they_are(made, task, tmp_path):
    table = made.d4rl()
    table["actions"] /= 2
    store = converted(save_h5(tmp_path / "p.hdf5", {".": table}), task, action_units="normalized")
    assert_same(store, made)
    save_h5(tmp_path / "q.hdf5", {".": made.d4rl()})
    with pytest.raises(PwmError, match="its actions reach"):
        convert(
            ConvertConfig(
                str(tmp_path / "q.hdf5"), str(tmp_path / "n"), str(task), action_units="normalized"
            )
        )


def test_the_command(made, task, tmp_path, capsys):
    path = save_h5(tmp_path / "p.hdf5", {".": made.d4rl()})
    words = ["convert", f"source={path}", f"suite={task}", f"out={tmp_path / 'out'}"]
    assert cli.main([*words, "limit=2"]) == 0
    assert EpisodeStore.open(tmp_path / "out").count("gym-pendulum") == 2
    assert cli.main([*words, "limit=2"]) == 0
    assert "is whole already" in capsys.readouterr().err
    with h5py.File(path, "a") as file:
        file["rewards"][0] = 7.0
    assert cli.main([*words, "limit=2"]) == 1
    assert "holds something else than this conversion makes (files:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rewards": None}, "has actions and no reward; it holds actions, next_observations"),
        ({"actions": None}, "has no arrays of episodes"),
        ({"observations": np.zeros((14, 3))}, "has 14 observations and 16 actions"),
        ({"timeouts": np.zeros(15)}, r"has truncated of shape \(15,\), and 16 actions"),
        (
            {"observations": np.zeros((16, 4))},
            "has observations of 4 numbers, and task .gym-pendulum. has 3",
        ),
        ({"rewards": np.full(16, np.nan)}, "its reward holds NaN"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, sentence, made, task, tmp_path):
    table = {k: v for k, v in (made.d4rl() | change).items() if v is not None}
    path = save_h5(tmp_path / "p.hdf5", {".": table})
    with pytest.raises(PwmError, match=sentence):
        converted(path, task)
    assert not (tmp_path / "store").exists()


def test_files_that_cannot_be_read_are_one_sentence(made, task, tmp_path, monkeypatch):
    (tmp_path / "a.hdf5").write_bytes(b"no")
    (tmp_path / "b.npz").write_bytes(b"no")
    np.savez(tmp_path / "c.npz", observations=np.array([{}], dtype=object))
    for name, words in (("a.hdf5", "no HDF5"), ("b.npz", "plain arrays"), ("c.npz", "plain")):
        with pytest.raises(PwmError, match=words):
            converted(tmp_path / name, task)
    path = save_h5(tmp_path / "p.hdf5", {".": made.d4rl()})
    with pytest.raises(PwmError, match=r"is of one task, and suite=mt30 has 30"):
        converted(path, "mt30")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(PwmError, match=r"pip install 'pwm\[hdf5\]'"):
        converted(path, task)


def _padded(made: Made) -> dict[str, np.ndarray]:
    """Arrays with an axis of episodes, to the longest, with zeros behind what is shorter."""
    most = max(LENGTHS)

    def stacked(parts: list[np.ndarray], rows: int) -> np.ndarray:
        return np.stack([np.pad(p, [(0, rows - len(p))] + [(0, 0)] * (p.ndim - 1)) for p in parts])

    columns = {"obs": stacked(made.obs, most + 1), "actions": stacked(made.action, most)}
    return {**columns, "rewards": stacked(made.reward, most), "lengths": np.array(LENGTHS)}


def test_padding_behind_the_lengths_of_episodes_is_left_out(made, task, tmp_path):
    arrays = _padded(made)
    np.savez(tmp_path / "p.npz", **arrays)
    store = converted(tmp_path / "p.npz", task)
    for index in range(3):
        episode = store.episode("gym-pendulum", index)
        np.testing.assert_array_equal(episode.obs, made.obs[index])
        np.testing.assert_array_equal(episode.reward, made.reward[index])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda arrays: arrays | {"lengths": np.array([5, 9, 3])}, "length 9 and 8 actions"),
        (lambda arrays: arrays | {"lengths": np.array([5, 8])}, r"\[2\] has no length"),
        (
            lambda arrays: {k: v.swapaxes(0, 1) for k, v in arrays.items() if k != "lengths"},
            r"9 of obs, 8 of action, 8 of reward; .* \(episodes, rows, size\)",
        ),
    ],
)
def test_arrays_of_episodes_that_do_not_agree_are_refused(made, task, tmp_path, change, match):
    np.savez(tmp_path / "p.npz", **change(_padded(made)))
    with pytest.raises(PwmError, match=match):
        converted(tmp_path / "p.npz", task)


@pytest.mark.parametrize("column", ["rewards", "next_observations"])
@pytest.mark.parametrize("rows", [15, 17])
def test_rewards_that_are_more_or_fewer_than_actions_are_refused(
    made, task, tmp_path, column, rows
):
    table = made.d4rl()
    table[column] = np.resize(table[column], (rows, *table[column].shape[1:]))
    np.savez(tmp_path / "p.npz", **table)
    with pytest.raises(PwmError, match=rf"has {rows} of (reward|next_obs) and 16 actions"):
        converted(tmp_path / "p.npz", task)


@pytest.mark.parametrize(("unit", "told"), [(1, False), (20, True)])
def test_actions_in_other_units_are_told(made, task, tmp_path, capsys, unit, told):
    table = made.d4rl()
    table["actions"] = table["actions"] * unit
    table["actions"][0] = 3
    np.savez(tmp_path / "p.npz", **table)
    converted(tmp_path / "p.npz", task)
    shown = " ".join(capsys.readouterr().err.split())
    assert "outside the action space and are clipped" in shown
    assert ("in other units" in shown) == told
