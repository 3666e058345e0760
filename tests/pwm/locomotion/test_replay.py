"""Windows of a replay are of one episode each, and stay at its end."""

from __future__ import annotations

import pytest
import torch

from pwm.core.errors import PwmError
from pwm.locomotion.batched_simulation import Step
from pwm.locomotion.replay import Replay


def filled(terminated=(), truncated=(), steps=12, capacity=100, recent_steps=1):
    """One environment whose observation counts the steps of its episode, from 100 per episode."""
    replay = Replay(capacity, 1, 1, 1, torch.device("cpu"), recent_steps)
    count, episode = 0, 0
    for t in range(steps):
        now, reached = 100.0 * episode + count, 100.0 * episode + count + 1
        ends = t in terminated or t in truncated
        count, episode = (0, episode + 1) if ends else (count + 1, episode)
        step = Step(
            torch.tensor([[100.0 * episode + count]]),
            torch.tensor([float(t + 1)]),
            torch.tensor([t in terminated]),
            torch.tensor([t in truncated]),
            torch.tensor([[reached]]),
        )
        replay.add(torch.tensor([[now]]), torch.tensor([[0.5]]), step)
    return replay


def windows(replay, horizon=4, count=200, recent=0.0):
    return replay.windows(horizon, count, torch.Generator().manual_seed(0), recent)


def test_windows_follow_the_steps():
    batch = windows(filled())
    assert torch.equal(batch.obs.diff(dim=0), torch.ones(4, 200, 1))
    assert torch.equal(batch.reward, batch.obs[1:, :, 0])
    assert set(batch.obs[0, :, 0].tolist()) == set(range(9))
    assert not batch.terminated.any()


def test_a_window_stays_where_an_episode_ended_by_itself():
    batch = windows(filled(terminated=[5]))
    ends = batch.terminated.any(0) & (batch.obs[0, :, 0] < 100)
    assert ends.any()
    first = int(batch.obs[0, ends, 0][0])
    window = batch.obs[:, ends, 0][:, 0].tolist()
    steps_left = 6 - first
    assert window == [min(first + j, 6.0) for j in range(5)]
    own = [column[:, ends][:, 0].tolist() for column in (batch.reward, batch.terminated)]
    assert own[0] == [first + j + 1.0 if j < steps_left else 0.0 for j in range(4)]
    assert own[1] == [j >= steps_left - 1 for j in range(4)]
    assert torch.equal(batch.action[:, ends][steps_left:, 0], torch.zeros(4 - steps_left, 1))


@pytest.mark.parametrize("capacity", [100, 8])
def test_a_share_of_what_is_drawn_is_of_the_newest_steps(capacity):
    replay = filled(steps=12, capacity=capacity, recent_steps=3)
    drawn = replay.observations(4000, torch.Generator().manual_seed(0), 0.5)[:, 0]
    first = 12 - min(capacity, 12)
    expected = {t: 0.5 / (12 - first) + 0.5 / 3 * (t >= 9) for t in range(first, 12)}
    assert set(drawn.tolist()) == set(expected)
    for t, share in expected.items():
        assert (drawn == t).float().mean() == pytest.approx(share, abs=0.03)
    starts = windows(replay, horizon=2, recent=0.5).obs[0, :, 0]
    assert (starts >= 8).float().mean() > 0.5 and starts.max() == 10


def test_no_window_reaches_beyond_the_clock():
    batch = windows(filled(truncated=[5]))
    assert (batch.obs.diff(dim=0) == 1).all()
    assert not batch.terminated.any()
    assert {2.0, 100.0} <= set(batch.obs[0, :, 0].tolist())


def test_the_oldest_steps_are_dropped():
    replay = filled(steps=12, capacity=8)
    assert len(replay) == 8
    starts = set(windows(replay).obs[0, :, 0].tolist())
    assert starts == {4.0, 5.0, 6.0, 7.0, 8.0}


def test_a_replay_is_loaded_as_it_was_saved():
    replay, other = filled(steps=12, capacity=8), filled(steps=3, capacity=8)
    other.load(replay.tensors())
    assert all(map(torch.equal, windows(replay), windows(other)))


def test_too_few_steps_for_a_window_are_an_error():
    with pytest.raises(PwmError, match=r"has 3 steps per environment.*pwm\.first_steps"):
        windows(filled(steps=3))
