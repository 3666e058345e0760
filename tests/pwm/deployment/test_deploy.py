from __future__ import annotations

import ast
import builtins
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deployable import ARM, CHEETAH, UNKNOWN, latent_policy, observation_policy, world_model

from pwm import __version__
from pwm.core.errors import PwmError
from pwm.core.files import directory_sha256
from pwm.core.suites import SUITES, get_task
from pwm.deployment import deploy as module
from pwm.deployment.deploy import DeployConfig, deploy
from pwm.deployment.numpy_file import module_name, open_numpy
from pwm.deployment.observation_layout import observation_layout
from pwm.deployment.onnx_file import open_onnx
from pwm.models.policy import load_policy
from pwm.models.world_model import KIND, model_meta
from pwm.runtime.checkpoint import save_checkpoint


@pytest.fixture
def policies(tmp_path) -> Path:
    latent_policy(CHEETAH).save(tmp_path / "policies" / "cheetah-run")
    observation_policy(ARM).save(tmp_path / "policies" / "arm")
    return tmp_path / "policies"


def test_every_policy_of_a_directory_is_deployed(policies, tmp_path):
    written = deploy(DeployConfig(policy=str(policies), out=str(tmp_path / "out")))
    names = ["cheetah-run.onnx", "cheetah-run.onnx.json", "arm.onnx", "arm.onnx.json"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    obs = np.ones((2, 3), np.float32)
    run = open_onnx(tmp_path / "out" / "arm.onnx")
    np.testing.assert_allclose(run(obs), load_policy(policies / "arm").act(obs), atol=1e-5)


def test_what_a_file_says_of_itself(policies, tmp_path):
    file, summary = deploy(
        DeployConfig(policy=str(policies), task="cheetah-run", out=str(tmp_path), latency=True)
    )
    facts = json.loads(summary.read_text())
    policy = load_policy(policies / "cheetah-run")
    assert facts["kind"] == "policy" and facts["pwm_version"] == __version__
    assert facts["source_sha256"] == directory_sha256(policies / "cheetah-run")
    assert facts["task"] == CHEETAH.table()
    observation = facts["observation"]
    assert observation["parts"] == [
        {"name": "position", "first": 0, "size": 8},
        {"name": "velocity", "first": 8, "size": 9},
    ]
    for name in ("mean", "scale", "period"):
        np.testing.assert_array_equal(
            np.float32(observation[name]), getattr(policy, f"obs_{name}").numpy()[:17]
        )
    unit = {"size": 6, "low": [-1.0] * 6, "high": [1.0] * 6, "units": "environment"}
    assert facts["action"] == unit
    action = facts["functions"].pop("action")
    assert action["file"] == "cheetah-run.onnx"
    assert action["inputs"] == [{"name": "obs", "shape": ["batch", 17]}]
    assert 0 < action["difference_in_float64"] < 1e-9
    for name in ("distance_from_float64", "rounding", "largest_difference"):
        assert 0 < action[name] < 2e-6
    assert 0 < action["microseconds"]["p50"] <= action["microseconds"]["p99"]
    model = onnx.load(file)
    inside = {entry.key: entry.value for entry in model.metadata_props}
    assert inside["task"] == "cheetah-run" and inside["source_sha256"] == facts["source_sha256"]
    facts.pop("functions")
    assert facts.items() <= json.loads(inside["pwm.json"]).items()
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 17], ["batch", 6]]


def test_the_same_policy_gives_the_same_bytes(policies, tmp_path):
    for to in ("onnx", "numpy"):
        files = [
            deploy(DeployConfig(policy=str(policies), task="arm", to=to, out=str(tmp_path / n)))[0]
            for n in ("one", "two")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_numpy_file_imports_numpy_alone_and_refuses_other_sizes(policies, tmp_path):
    file, _ = deploy(DeployConfig(policy=str(policies / "arm"), to="numpy", out=str(tmp_path)))
    tree = ast.parse(file.read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert {name.name for node in imports for name in node.names} == {"base64", "numpy"}
    action = open_numpy(file, "action")
    with pytest.raises(ValueError, match=r"obs has 3 entries, got an array of shape \(4,\)"):
        action(np.zeros(4))
    with pytest.raises(TypeError, match="function of obs"):
        action(np.zeros(3), np.zeros(3))
    assert open_numpy(file, "METADATA")["action"]["high"] == [10.0, 0.4]


@pytest.mark.parametrize("to", ["onnx", "numpy"])
def test_a_world_model_is_deployed_for_a_task(tmp_path, to):
    model = world_model(ARM, get_task("mw-reach"))
    save_checkpoint(tmp_path / "model", KIND, {"model": model.state_dict()}, model_meta(model))
    config = DeployConfig(checkpoint=str(tmp_path / "model"), task="arm", to=to, out=str(tmp_path))
    *files, summary = deploy(config)
    functions = json.loads(summary.read_text())["functions"]
    assert [*functions] == ["encode", "next", "reward", "continuation"]
    assert [f["output"]["name"] for f in functions.values()] == [
        "latent", "next_latent", "reward", "continuation",
    ]  # fmt: skip
    assert {f["file"] for f in functions.values()} == {file.name for file in files}
    with pytest.raises(PwmError, match=r"task=cup-catch is no .* tasks are arm, mw-reach"):
        deploy(replace(config, task="cup-catch"))
    with pytest.raises(PwmError, match="deployed for one of its tasks"):
        deploy(replace(config, task=None))


def test_files_that_exist_are_kept(policies, tmp_path):
    config = DeployConfig(policy=str(policies), out=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "arm.onnx").write_text("mine")
    with pytest.raises(PwmError, match=r"arm\.onnx exists; give another out="):
        deploy(config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["arm.onnx"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"to": "onx"}, "did you mean 'onnx'"),
        ({"checkpoint": "model"}, "either policy= or checkpoint="),
        ({"policy": None}, "either policy= or checkpoint="),
        ({"policy": "nowhere"}, "there is no nowhere"),
        ({"task": "cup-catch"}, "no policy for cup-catch; it has cheetah-run, arm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(policies, tmp_path, changes, sentence):
    config = DeployConfig(policy=str(policies), out=str(tmp_path / "out"))
    with pytest.raises(PwmError, match=sentence):
        deploy(replace(config, **changes))
    assert not (tmp_path / "out").exists()


def test_a_file_that_computes_something_else_is_not_written(policies, tmp_path, monkeypatch):
    write = module.onnx_model

    def wrong(network, facts, *dtype):
        last = replace(network.layers[-1], bias=network.layers[-1].bias + np.float32(1e-4))
        return write(replace(network, layers=(*network.layers[:-1], last)), facts, *dtype)

    monkeypatch.setattr(module, "onnx_model", wrong)
    with pytest.raises(
        PwmError, match=r"differs in float32 from the original by .*; nothing is written"
    ):
        deploy(DeployConfig(policy=str(policies / "arm"), out=str(tmp_path / "out")))
    assert [*(tmp_path / "out").iterdir()] == []


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def refusing(name, *rest, **options):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refusing)


def test_without_onnx_the_remedy_is_said(policies, tmp_path, monkeypatch):
    without(monkeypatch, "onnx")
    with pytest.raises(PwmError, match=r"needs the package onnx.*to=numpy"):
        deploy(DeployConfig(policy=str(policies / "arm"), out=str(tmp_path)))


def test_without_onnxruntime_it_is_said_that_nothing_was_compared(
    policies, tmp_path, monkeypatch, capsys
):
    without(monkeypatch, "onnxruntime")
    _, summary = deploy(DeployConfig(policy=str(policies / "arm"), out=str(tmp_path)))
    assert "not compared with torch, since onnxruntime is not installed" in capsys.readouterr().err
    assert "largest_difference" not in json.loads(summary.read_text())["functions"]["action"]


def test_an_executable_needs_a_compiler(policies, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(PwmError, match=r"C\+\+ compiler, and there is no no-such-compiler"):
        deploy(DeployConfig(policy=str(policies), to="executable", out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_bounds_that_are_not_known_are_told(tmp_path, capsys):
    observation_policy(UNKNOWN).save(tmp_path / "policy")
    config = DeployConfig(policy=str(tmp_path / "policy"), to="numpy", out=str(tmp_path))
    file, summary = deploy(config)
    assert "The bounds of arm-of-before's actions are not known" in capsys.readouterr().err
    assert json.loads(summary.read_text())["action"]["units"] == "normalized"
    action = open_numpy(file, "action")(np.full((9, 3), 3.0))
    assert np.abs(action).max() <= 1


@pytest.mark.slow
def test_a_program_is_deployed_with_its_metadata(policies, tmp_path):
    file, _ = deploy(DeployConfig(policy=str(policies / "arm"), to="torch", out=str(tmp_path)))
    extra = {"pwm.json": ""}
    torch.export.load(file, extra_files=extra)
    assert json.loads(extra["pwm.json"])["task"] == ARM.table()


@pytest.mark.parametrize(
    ("name", "expected"), [("walker-run", "walker_run"), ("2-arms", "_2_arms"), ("class", "_class")]
)
def test_a_modules_name_can_be_imported(name, expected):
    assert module_name(name) == expected


def test_observations_are_described_to_their_last_entry():
    for task in (*SUITES["mt80"], ARM):
        parts = observation_layout(task)
        assert sum(part["size"] for part in parts) == task.obs_dim, task.name
        assert len({part["name"] for part in parts}) == len(parts)
    assert observation_layout(get_task("mw-push"))[6]["name"] == "previous_hand_position"


@pytest.mark.slow
def test_observations_are_described_as_the_simulators_have_them():
    from envs.dmcontrol import load

    for task in SUITES["mt30"]:
        spec = load(task.name, None).observation_spec()
        sizes = {name: int(np.prod(entry.shape)) for name, entry in spec.items()}
        assert {p["name"]: p["size"] for p in observation_layout(task)} == sizes, task.name
