from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deployable import ARM, CHEETAH, latent_policy, observation_policy, world_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pwm.core.errors import PwmError
from pwm.core.suites import get_task
from pwm.deployment.comparison import SAME, compared
from pwm.deployment.numpy_file import numpy_in_float64, numpy_source, open_numpy
from pwm.deployment.onnx_file import onnx_in_float64, onnx_model, open_onnx
from pwm.deployment.sources import PolicySource, WorldModelSource
from pwm.deployment.torch_program import (
    open_executable,
    open_program,
    program_in_float64,
    write_executable,
    write_program,
)

POLICIES = {
    "wrapped": lambda: latent_policy(CHEETAH),
    "bounds": lambda: latent_policy(ARM),
    "as they are": lambda: latent_policy(get_task("pendulum-swingup"), normalize_obs=False),
    "no encoder": lambda: observation_policy(get_task("cup-catch")),
    "no encoder, bounds": lambda: observation_policy(ARM),
}
Run = Callable[..., np.ndarray]


def opened(source: PolicySource | WorldModelSource, directory: Path, to: str) -> dict[str, Run]:
    """The functions of a source, each through a file."""
    file = directory / "file.py"
    if to == "numpy":
        file.write_text(numpy_source(source.networks, {"task": source.task.table()}))
        return {name: open_numpy(file, name) for name in source.networks}
    runs = {}
    for name, network in source.networks.items():
        file = directory / f"{name}.{to}"
        if to == "onnx":
            file.write_bytes(onnx_model(network, {}))
        else:
            write_program(network, {}, file)
        runs[name] = open_onnx(file) if to == "onnx" else open_program(file)
    return runs


def in_float64(
    source: PolicySource | WorldModelSource, directory: Path, name: str
) -> dict[str, Run]:
    """A function in float64 by the operators of every kind of file, of which NumPy's is there."""
    network = source.networks[name]
    onnx_run = onnx_in_float64(network)
    assert onnx_run is not None
    return {
        "onnx": onnx_run,
        "numpy": numpy_in_float64(directory / "file.py", network),
        "torch": program_in_float64(network),
    }


@pytest.fixture(scope="module", params=POLICIES)
def policy_files(request, tmp_path_factory):
    policy = POLICIES[request.param]()
    source = PolicySource(policy)
    directory = tmp_path_factory.mktemp("deployed")
    runs = {to: opened(source, directory, to)["action"] for to in ("onnx", "numpy")}
    return policy, source, runs, in_float64(source, directory, "action")


def test_actions_in_float64_are_the_policys(policy_files):
    _, source, _, exact = policy_files
    inputs = source.samples("action", 256)
    expected = source.outputs("action", inputs, exact=True)
    for to, run in exact.items():
        allowed = 1e-9 if to == "onnx" else 1e-12  # ONNX has LayerNorm's epsilon in float32
        found = run(*(each.astype(np.float64) for each in inputs))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=allowed, err_msg=to)


def test_a_model_in_float64_is_the_files_but_for_the_rounding_of_constants():
    for network in WorldModelSource(world_model(ARM), ARM).networks.values():
        file, exact = (
            onnx.load_from_string(onnx_model(network, {}, dtype)).graph
            for dtype in (np.float32, np.float64)
        )
        assert [*file.node] == [*exact.node]
        for one, other in zip(file.initializer, exact.initializer, strict=True):
            rounded = onnx.numpy_helper.to_array(one)
            unrounded = onnx.numpy_helper.to_array(other)
            np.testing.assert_array_equal(rounded, unrounded.astype(rounded.dtype))


@pytest.mark.parametrize("shift", [1e-5, np.nan])
def test_a_difference_that_rounding_would_hide_is_found_in_float64(tmp_path, shift):
    source = PolicySource(latent_policy(CHEETAH))
    run = opened(source, tmp_path, "numpy")["action"]
    right = in_float64(source, tmp_path, "action")["numpy"]
    with pytest.raises(
        PwmError, match=r"'action' of the file differs in float64 .* by (1e-05|nan)"
    ):
        compared(run, lambda obs: right(obs) + shift, source, "action")
    with pytest.raises(PwmError, match=r"'action' of the file differs in float32"):
        compared(lambda obs: run(obs) + np.float32(30 * shift), right, source, "action")


@given(data=st.data())
@settings(max_examples=25)
def test_actions_are_the_policys_for_any_observation(policy_files, data):
    policy, source, runs, _ = policy_files
    rows = data.draw(st.sampled_from([1, 2, 7]))
    numbers = st.floats(-50, 50, width=32)
    obs = data.draw(arrays(np.float32, (rows, policy.task.obs_dim), elements=numbers))
    action = policy.act(obs)
    exact = source.outputs("action", [obs], exact=True)
    half = 0.5 * (np.subtract(ARM.action_high, ARM.action_low) if policy.task == ARM else 2.0)
    rounding = np.abs((action - exact) / half).max()
    for to, run in runs.items():
        found = run(obs)
        assert found.shape == action.shape and found.dtype == np.float32
        assert np.abs((found - action) / half).max() <= SAME + 8 * rounding, to


def test_actions_of_usual_observations_differ_by_rounding(policy_files):
    policy, source, runs, exact = policy_files
    for to, run in runs.items():
        found = compared(run, exact[to], source, "action")
        assert found.largest < 2e-6 and found.distance < 2e-6, to
    obs = source.samples("action", 3)[0]
    alone = runs["numpy"](obs[0])
    assert alone.shape == (policy.task.action_dim,)
    np.testing.assert_allclose(alone, policy.act(obs)[0], rtol=1e-4, atol=1e-5)


def test_whole_turns_of_an_angle_change_nothing(tmp_path):
    source = PolicySource(latent_policy(CHEETAH))
    obs = source.samples("action", 1)[0]
    turned = obs + np.float32(2 * np.pi) * 3 * (np.arange(17) == 1)
    other = obs + np.float32(1) * (np.arange(17) == 1)
    for to in ("onnx", "numpy"):
        run = opened(source, tmp_path, to)["action"]
        np.testing.assert_allclose(run(turned.astype(np.float32)), run(obs), atol=1e-4)
        assert np.abs(run(other) - run(obs)).max() > 1e-2


def test_an_observation_that_is_not_finite_gives_no_action(policy_files):
    policy, _, runs, _ = policy_files
    obs = np.zeros((2, policy.task.obs_dim), np.float32)
    obs[1, 0] = np.nan
    for run in runs.values():
        action = run(obs)
        assert np.isfinite(action[0]).all()
        assert np.isnan(action[1]).all()


def test_actions_reach_the_bounds_and_not_beyond(tmp_path):
    policy = observation_policy(ARM)
    policy.actor.mean[-1].bias.copy_(torch.tensor([[90.0, -90.0, 0, 0, 0, 0]]))
    for to in ("onnx", "numpy"):
        run = opened(PolicySource(policy), tmp_path, to)["action"]
        np.testing.assert_array_equal(run(np.zeros((1, 3), np.float32)), np.float32([[10, -0.4]]))


@pytest.mark.parametrize("to", ["onnx", "numpy"])
@pytest.mark.parametrize("normalize_obs", [True, False])
def test_a_world_model_steps_as_the_model_does(tmp_path, to, normalize_obs):
    model = world_model(get_task("mw-reach"), ARM, normalize_obs=normalize_obs)
    runs = opened(WorldModelSource(model, ARM), tmp_path, to)
    rng, task = np.random.default_rng(0), torch.tensor(1)
    obs = rng.normal(size=(5, 3)).astype(np.float32)
    unit = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
    action = (np.float32([5, 0]) + unit * np.float32([5, 0.4])).astype(np.float32)

    def wide(x: np.ndarray, size: int) -> torch.Tensor:
        return torch.from_numpy(np.pad(x, [(0, 0), (0, size - x.shape[1])]))

    z = model.encode(wide(obs, 39), task)
    latent = runs["encode"](obs)
    np.testing.assert_allclose(latent, z, atol=1e-6)
    given = wide(unit, 4)
    np.testing.assert_allclose(runs["next"](latent, action), model.next(z, given, task), atol=1e-6)
    np.testing.assert_allclose(
        runs["reward"](latent, action), model.reward(z, given, task), atol=3e-6
    )
    alive = model.continuation(z, task).unsqueeze(-1)
    np.testing.assert_allclose(runs["continuation"](latent), alive, atol=1e-6)


def test_a_world_model_in_float64_is_the_model(tmp_path):
    model = world_model(get_task("mw-reach"), ARM)
    model.task_emb.weight *= 3  # longer than 1, so that they are scaled
    source = WorldModelSource(model, ARM)
    opened(source, tmp_path, "numpy")
    for name in source.networks:
        inputs = source.samples(name, 32)
        expected = source.outputs(name, inputs, exact=True)
        for to, run in in_float64(source, tmp_path, name).items():
            allowed = 1e-9 if to == "onnx" else 1e-12
            found = run(*(each.astype(np.float64) for each in inputs))
            np.testing.assert_allclose(found, expected, rtol=0, atol=allowed, err_msg=name + to)


@pytest.mark.slow
def test_a_torch_program_acts_as_the_policy(tmp_path):
    source = PolicySource(latent_policy(CHEETAH))
    run = opened(source, tmp_path, "pt2")["action"]
    exact = program_in_float64(source.networks["action"])
    assert compared(run, exact, source, "action").largest < 2e-6


@pytest.mark.slow
def test_machine_code_acts_as_the_policy(tmp_path):
    source = PolicySource(latent_policy(ARM))
    write_executable(source.networks["action"], {"task": "arm"}, tmp_path / "arm.pt2")
    run = open_executable(tmp_path / "arm.pt2")
    exact = program_in_float64(source.networks["action"])
    assert compared(run, exact, source, "action").largest < 2e-6
