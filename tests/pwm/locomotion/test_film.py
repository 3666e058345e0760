"""Videos of learned policies: what is drawn, how many frames there are, and what has none."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("newton", reason="needs the extra locomotion")

from pwm.core.errors import PwmError
from pwm.locomotion import compare as module
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.compare import CompareConfig
from pwm.locomotion.drawing import HEIGHT, WIDTH, Camera, draw
from pwm.locomotion.film import Scenes, episode, film, require_drawable
from pwm.locomotion.learner import task_of
from pwm.locomotion.toys import Pendulum
from pwm.models.actor_critic import ActorCriticSize, Actors, action_masks
from pwm.models.policy import Policy

LEVEL = Camera(np.array([0.0, 0.0, 1.0]), metres=3.2, azimuth=0.0, elevation=0.1)  # 0.01 m a pixel


def ball(x, y, z):
    return np.tile([x, y, z], (2, 1)).astype(float)


def changed(ends, radius=0.3):
    """(HEIGHT, WIDTH) where a picture of capsules differs from that of the ground alone."""
    nothing = draw(np.zeros((0, 2, 3)), np.zeros(0), LEVEL)
    return (draw(ends, np.full(len(ends), radius), LEVEL) != nothing).any(-1)


def orange(frame):
    """(HEIGHT, WIDTH) where a robot is drawn."""
    return frame[..., 0] > frame[..., 2].astype(int) + 40


def test_a_ball_is_drawn_at_its_size_and_place():
    seen = changed(ball(0.5, 0.0, 1.0)[None])[: HEIGHT * 5 // 8]  # above its shadow
    rows, columns = np.nonzero(seen)
    assert np.ptp(columns) == pytest.approx(59, abs=1)
    assert np.ptp(rows) == pytest.approx(59, abs=1)
    assert columns.mean() == pytest.approx(WIDTH / 2 + 49.5, abs=1)
    assert rows.mean() == pytest.approx(HEIGHT / 2, abs=1)


@pytest.mark.parametrize("end", [(1.0, 0.0, 1.0), (0.0, 0.0, 1.9), (0.6, 0.5, 1.4)])
def test_a_capsule_covers_what_balls_along_it_cover(end):
    capsule = np.array([[0.0, 0.0, 1.0], end])
    between = [capsule[0] + share * (capsule[1] - capsule[0]) for share in np.linspace(0, 1, 60)]
    balls = np.stack([ball(*place) for place in between])
    assert (changed(capsule[None], 0.1) ^ changed(balls, 0.1)).mean() < 1e-3


def test_the_nearer_of_two_balls_hides_the_other():
    far, near = ball(0, 1, 1), ball(0, -1, 1)
    level = Camera(LEVEL.centre, 3.2, 0.0, 1e-3)
    radii = np.full(2, 0.3)
    pictures = [draw(np.stack(pair), radii, level) for pair in ((far, near), (near, far))]
    middle = [picture[HEIGHT // 2, WIDTH // 2] for picture in pictures]
    assert not np.array_equal(*middle)  # the second and the first of the colours
    alone = draw(near[None], radii[:1], level)[HEIGHT // 2, WIDTH // 2]
    assert np.array_equal(middle[1], alone)


def test_frames_of_an_episode_are_25_a_second_until_it_ends():
    hopper = require_drawable(make_simulation("hopper", num_envs=1))
    taken = []

    def still(observation):
        taken.append(observation)
        return observation[:, :3] * 0

    scenes = episode(hopper, still)
    assert len(scenes.ends) == 1 + (len(taken) - 1) * 25 // 60
    assert scenes.ends.shape[1:] == (4, 2, 3)
    frames = list(scenes.some(3).frames())
    assert [frame.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 3
    assert not np.array_equal(frames[0], frames[2])


def test_the_camera_goes_along_with_the_robot():
    ends = np.array([[[0.0, 0.0, 0.3], [0.0, 0.0, 1.0]]])
    travelled = np.stack([ends, ends + np.array([3.7, 0.0, 0.0])])
    first, last = Scenes(travelled, np.array([0.1])).frames()
    assert orange(first).any()
    assert np.array_equal(orange(first), orange(last))
    assert not np.array_equal(first, last)  # the ground passes by


@pytest.mark.parametrize("name", ["ant", "anymal", "humanoid", "humanoid_muscles"])
def test_every_robot_can_be_drawn(name):
    robot = require_drawable(make_simulation(name, num_envs=1))
    ends, radii = (value.numpy() for value in robot.capsules())
    frame = next(Scenes(ends, radii).frames())
    assert orange(frame).mean() > 0.01


@pytest.mark.slow
def test_a_film_of_a_run_is_a_video_and_a_strip(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    import imageio.v3 as iio

    simulation = make_simulation("hopper", num_envs=1)
    size, task = ActorCriticSize(actor=[8], critic=[8]), task_of(simulation)
    actors = Actors(11, action_masks([task], 3), size)
    moments = simulation.reset(0)[0] * 0, simulation.reset(0)[0] * 0 + 1
    policy = Policy.from_observation_actor(task, *moments, actors, 0, size)
    policy.save(tmp_path / "policy", {})
    frames = iio.imread(film(tmp_path))
    assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
    assert len(frames) > 5
    assert iio.imread(tmp_path / "video.png").shape == (HEIGHT // 2, 8 * WIDTH // 2, 3)


def test_what_cannot_be_filmed_is_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    with pytest.raises(PwmError, match="has no policy to make a video of"):
        film(tmp_path)
    with pytest.raises(PwmError, match="pendulum has no bodies that could be drawn"):
        require_drawable(Pendulum(1))
    toy = CompareConfig(tasks=["pendulum"], out=str(tmp_path), videos=True)
    with pytest.raises(PwmError, match="pendulum has no bodies that could be drawn"):
        module._chosen(toy, "cpu")
    config = CompareConfig(tasks=["ant"], methods=["ppo"], out=str(tmp_path), videos=True)
    with pytest.raises(PwmError, match="videos=true needs a run of pwm or shac"):
        config.validate()
