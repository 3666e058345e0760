"""LeRobot's plugin acts as the policy that it was made of, with LeRobot itself where it is
installed and else with the names of it that the plugin uses."""

from __future__ import annotations

import importlib
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import lerobot_stand_in
import numpy as np
import pytest
import torch
from deployable import CHEETAH, latent_policy, world_model

from pwm.deployment.deploy import DeployConfig, deploy
from pwm.deployment.onnx_file import onnx_model
from pwm.deployment.sources import WorldModelSource

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
PLUGIN = Path(__file__).parents[2] / "plugins" / "lerobot_policy_pwm"
NAME = "lerobot_policy_pwm"
INSTALLED = find_spec("lerobot") is not None


@pytest.fixture(scope="module")
def plugin():
    with pytest.MonkeyPatch.context() as patch:
        if not INSTALLED:
            lerobot_stand_in.install(patch)
        patch.syspath_prepend(PLUGIN / "src")
        yield importlib.import_module(NAME)
        for module in [name for name in sys.modules if name.startswith(NAME)]:
            del sys.modules[module]


@pytest.fixture(scope="module")
def original():
    return latent_policy(CHEETAH)


@pytest.fixture(scope="module")
def deployed(original, tmp_path_factory):
    directory = tmp_path_factory.mktemp("deployed")
    original.save(directory / "policy")
    return deploy(DeployConfig(policy=str(directory / "policy"), out=str(directory)))[0]


def test_it_acts_as_the_policy_does_and_its_weights_are_in_the_state_dict(
    plugin, original, deployed
):
    policy = plugin.PwmPolicy.from_onnx(deployed)
    opened = plugin.PwmPolicy(policy.config)
    opened.load_state_dict(policy.state_dict())
    obs = np.random.default_rng(0).normal(size=(5, 17)).astype(np.float32)
    batch = {"observation.state": torch.from_numpy(obs)}
    expected = torch.from_numpy(original.act(obs))
    for one in (policy, opened):
        torch.testing.assert_close(one.select_action(batch), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        opened.predict_action_chunk(batch)[:, 0], policy.select_action(batch)
    )


def test_what_it_takes_and_gives_is_in_its_configuration(plugin, deployed):
    config = plugin.PwmPolicy.from_onnx(deployed).config
    assert config.robot_state_feature.shape == (17,)
    assert config.action_feature.shape == (6,)
    assert config.task == "cheetah-run"
    assert {mode.value for mode in config.normalization_mapping.values()} == {"IDENTITY"}
    with pytest.raises(ValueError, match=r"takes observation\.state and gives action"):
        plugin.PwmPolicy(plugin.PwmConfig(device="cpu"))


def test_a_state_that_is_not_finite_gets_no_action(plugin, deployed):
    policy = plugin.PwmPolicy.from_onnx(deployed)
    with pytest.raises(ValueError, match="NaN or infinite"):
        policy.select_action({"observation.state": torch.full((1, 17), torch.nan)})
    with pytest.raises(NotImplementedError, match="does not learn in LeRobot"):
        policy.forward({})


def test_a_part_of_a_world_model_is_no_policy(plugin, tmp_path):
    network = WorldModelSource(world_model(CHEETAH), CHEETAH).networks["encode"]
    (tmp_path / "encode.onnx").write_bytes(onnx_model(network, {}))
    with pytest.raises(ValueError, match=r"encode\.onnx is no policy"):
        plugin.PwmPolicy.from_onnx(tmp_path / "encode.onnx")


def test_lerobot_finds_the_parts_by_their_names(plugin):
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    assert project["name"] == NAME
    module = plugin.PwmConfig.__module__
    modeling = importlib.import_module(module.replace("configuration_", "modeling_"))
    processor = importlib.import_module(module.replace("configuration_", "processor_"))
    assert modeling.PwmPolicy.name == "pwm"
    assert modeling.PwmPolicy.config_class is plugin.PwmConfig
    assert processor.make_pwm_pre_post_processors is plugin.make_pwm_pre_post_processors


@pytest.mark.skipif(not INSTALLED, reason="needs LeRobot")
def test_lerobot_opens_it_by_its_path_and_acts(plugin, original, deployed, tmp_path):
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    convert = importlib.import_module(f"{NAME}.__main__").convert
    convert(str(deployed), str(tmp_path / "policy"))
    config = PreTrainedConfig.from_pretrained(tmp_path / "policy")
    policy = get_policy_class(config.type).from_pretrained(tmp_path / "policy", config=config)
    before, after = make_pre_post_processors(
        config,
        pretrained_path=str(tmp_path / "policy"),
        preprocessor_overrides={
            "device_processor": {"device": "cpu"},
            "rename_observations_processor": {"rename_map": {}},
        },
    )
    obs = np.random.default_rng(0).normal(size=17).astype(np.float32)
    given = before({"observation.state": torch.from_numpy(obs)})
    action = after(policy.select_action(given)).squeeze(0).numpy()
    np.testing.assert_allclose(action, original.act(obs), rtol=0, atol=1e-5)
