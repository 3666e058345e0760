from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tdmpc2_files import CHECKPOINTS, CHUNK_2023, EXPECTED
from torch import Tensor

import pwm
from pwm.cli import main as cli
from pwm.core.errors import PwmError
from pwm.core.locks import DirectoryLock
from pwm.core.suites import SUITES, Suite, get_suite
from pwm.interop.export_checkpoint import ExportConfig, export_checkpoint
from pwm.interop.import_checkpoint import ImportConfig, import_checkpoint
from pwm.interop.tdmpc2_checkpoints import published_key, read_published, to_published
from pwm.models.sizes import PUBLISHED_SIZES, size_name
from pwm.models.world_model import KIND, ModelSize, WorldModel, model_meta
from pwm.runtime.checkpoint import save_checkpoint

MT30, MT80 = SUITES["mt30"], SUITES["mt80"]
TINY = ModelSize(40, 2, 48, 32, 64, 2)


def run_import(path: Path, out: Path, suite: object = "mt30") -> pwm.WorldModel:
    return pwm.load_world_model(import_checkpoint(ImportConfig(str(path), suite, str(out))))


def fixture(layout: str = "tdmpc2-old") -> dict[str, Tensor]:
    return torch.load(CHECKPOINTS[layout], weights_only=True)["model"]


def save_model(path: Path, state: dict) -> Path:
    torch.save({"model": state}, path)
    return path


def pwm_layout() -> dict[str, Tensor]:
    """The fixture as PWM's own code keeps it."""
    state = {k: v for k, v in fixture().items() if "_pi" not in k and "_Qs" not in k}
    return {key.replace("_encoder.state.", "_encoder."): value for key, value in state.items()}


def outputs(model: WorldModel) -> dict[str, Tensor]:
    given = load_file(EXPECTED)
    task, action = given["task"], given["action"]
    z = model.encode(given["obs"], task)
    found = {
        "latent": z,
        "next_latent": model.next(z, action, task),
        "reward_logits": model.reward_logits(z, action, task),
        "reward": model.reward(z, action, task),
    }
    if model.has_q:
        mean, log_std = model.policy_prior(z, task)
        found |= {
            "q_logits": model.q_logits(z, action, task),
            "target_q_logits": model.target_q_logits(z, action, task),
            "q": model.q(z, action, task),
            "policy_mean": mean,
            "policy_log_std": log_std,
        }
    return found


@pytest.mark.parametrize("layout", CHECKPOINTS)
def test_an_imported_model_computes_what_the_original_code_does(layout, tmp_path):
    model = run_import(CHECKPOINTS[layout], tmp_path / "m")
    expected, found = load_file(EXPECTED), outputs(model)
    assert set(found) == set(expected) - {"obs", "action", "task", "action_dims"}
    for name, value in found.items():
        assert value.shape == expected[name].shape
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5, msg=name)
    assert not model.normalize_obs
    assert not model.training


def test_both_layouts_give_the_same_model(tmp_path):
    old = run_import(CHECKPOINTS["tdmpc2-old"], tmp_path / "old").state_dict()
    new = run_import(CHECKPOINTS["tdmpc2-new"], tmp_path / "new").state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[key], new[key]) for key in old)


@pytest.mark.parametrize("wrap", [lambda s: {"model": s}, lambda s: {"world_model": s}, dict])
def test_a_model_of_pwm_has_no_q_and_prior(wrap, tmp_path):
    torch.save(wrap(pwm_layout()), tmp_path / "a.pt")
    model = run_import(tmp_path / "a.pt", tmp_path / "m")
    assert not model.has_q
    expected = load_file(EXPECTED)
    for name, value in outputs(model).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5, msg=name)


def test_a_whole_agent_of_pwm_gives_its_world_model(tmp_path):
    actor = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(actor.parameters())
    actor(torch.ones(2)).sum().backward()
    optimizer.step()
    agent = {
        "actor": actor.state_dict(),
        "world_model": OrderedDict(pwm_layout()),
        "obs_rms": None,
        "actor_opt": optimizer.state_dict(),
    }
    torch.save(agent, tmp_path / "a.pt")
    model = run_import(tmp_path / "a.pt", tmp_path / "m")
    assert torch.equal(model.encoder[0].weight, pwm_layout()["_encoder.0.weight"])


class RunningMeanStd:
    """Of PWM's code in what it keeps."""

    def __init__(self, mean: object, var: object) -> None:
        self.mean, self.var, self.count = mean, var, np.float64(1e4)


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_a_whole_agent_of_pwm_carries_its_normalization_over(kind, tmp_path, monkeypatch, capsys):
    mean, var = np.linspace(-1, 1, 24), np.linspace(0.5, 2, 24)
    agent = {
        "world_model": pwm_layout(),
        "obs_rms": RunningMeanStd(kind(mean), kind(var)),
        "rew_rms": None,
        "ret_rms": RunningMeanStd(kind(np.zeros(1)), kind(np.ones(1))),
        "config": OmegaConf.create({"lr": 1e-3, "units": [8, "x", None]}),
        "scores": np.arange(3),
    }
    with monkeypatch.context() as patch:
        module = types.ModuleType("pwm.utils.running_mean_std")
        module.RunningMeanStd = RunningMeanStd
        patch.setattr(RunningMeanStd, "__module__", module.__name__)
        patch.setitem(sys.modules, module.__name__, module)
        torch.save(agent, tmp_path / "a.pt")
    model = run_import(tmp_path / "a.pt", tmp_path / "m")
    expected = load_file(EXPECTED)
    obs = expected["obs"] * torch.as_tensor(np.sqrt(var + 1e-5)).float() + torch.as_tensor(mean)
    z = model.encode(obs.float(), expected["task"])
    torch.testing.assert_close(z, expected["latent"], rtol=0, atol=1e-5)
    told = " ".join(capsys.readouterr().err.split())
    assert "obs_rms is the normalization of observations; it clipped them to +-5" in told


@pytest.mark.parametrize(
    ("moments", "sentence"),
    [
        ({"mean": torch.zeros(23), "var": torch.ones(23)}, r"mean of shape \(23,\)"),
        ({"mean": torch.zeros(24), "var": -torch.ones(24)}, "finite moments"),
        ({"mean": torch.zeros(24)}, "without a mean and a var"),
        ("running", "without a mean and a var"),
    ],
)
def test_a_normalization_that_cannot_be_read_is_refused(moments, sentence, tmp_path):
    torch.save({"world_model": pwm_layout(), "obs_rms": moments}, tmp_path / "a.pt")
    with pytest.raises(PwmError, match=sentence):
        run_import(tmp_path / "a.pt", tmp_path / "m")


def wrapped(prefix, state):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("layout", CHECKPOINTS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": wrapped("_orig_mod.", s)},
        lambda s: {"state_dict": wrapped("module.", s)},
        lambda s: {"state_dict": {"model": wrapped("module._orig_mod.", s)}},
        lambda s: wrapped("model.", s) | {"scale.value": torch.ones(1)},
        lambda s: {"model": s | wrapped("_compiled._orig_mod.", s)},
        lambda s: {"model": {k.replace("_dynamics.", "_dynamics._orig_mod."): s[k] for k in s}},
        lambda s: {"model": {k.replace("_encoder.", "_encoder.module."): s[k] for k in s}},
    ],
)
def test_what_wrappers_add_to_keys_is_taken_away(layout, wrap, tmp_path):
    state = fixture(layout)
    torch.save(wrap(state), tmp_path / "a.pt")
    found = read_published(tmp_path / "a.pt", MT30)
    plain = read_published(CHECKPOINTS[layout], MT30)
    assert found.layout == layout
    assert all(torch.equal(value, found.state[key]) for key, value in plain.state.items())


def test_a_weight_that_is_there_twice_with_different_values_is_refused(tmp_path):
    state = fixture()
    other = {key: value + 1 for key, value in state.items() if key.startswith("_dynamics.0")}
    path = save_model(tmp_path / "a.pt", state | wrapped("other.", other))
    with pytest.raises(PwmError, match=r"_dynamics\.0\.\S+ twice with different values, as '_dyn"):
        read_published(path, MT30)


def before_the_release(key: str, nested: bool) -> str:
    """The place of a layer in a Sequential of linear layers, norms and activations."""
    head, layer, last, parameter = re.fullmatch(r"(\D+)\.(\d)\.(ln\.)?(\w+)", key).groups()
    place = 3 * int(layer) + bool(last)
    if nested and place == 7:
        return f"{head}.1.{parameter}"
    return f"{head}.{'0.' if nested else ''}{place}.{parameter}"


@pytest.mark.parametrize("nested", [True, False])
def test_models_of_before_the_release_have_norms_of_their_own(nested, tmp_path):
    torch.manual_seed(0)
    made = WorldModel(ModelSize(24, 1, 16, 16, 0, 2), get_suite("walker-run"), q_and_prior=True)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    state = {published_key(name, "tdmpc2-old"): t for name, t in made.state_dict().items()}
    old = {k if "Qs" in k else before_the_release(k, nested): t for k, t in state.items()}
    assert not any(".ln." in key for key in old)
    found = read_published(save_model(tmp_path / "a.pt", old), made.suite)
    assert found.skeleton.size == made.size
    assert all(torch.equal(value, found.state[key]) for key, value in made.state_dict().items())
    old["_reward.0.1.weight" if nested else "_reward.1.weight"] = torch.zeros(15)
    with pytest.raises(PwmError, match="neither a linear layer nor the norm"):
        read_published(save_model(tmp_path / "a.pt", old), made.suite)


@pytest.mark.parametrize("layout", CHECKPOINTS)
def test_without_target_q_they_are_copies(layout, tmp_path, capsys):
    state = without(r"_target_Qs")(fixture(layout))
    model = run_import(save_model(tmp_path / "a.pt", state), tmp_path / "m")
    for one, other in zip(model.q_target.parameters(), model.q_ensemble.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "no target Q networks; they begin as copies" in capsys.readouterr().err


def test_the_checkpoint_says_where_it_came_from(tmp_path, capsys):
    path = CHECKPOINTS["tdmpc2-old"]
    run_import(path, tmp_path / "m")
    meta = json.loads((tmp_path / "m" / "checkpoint.json").read_text())["meta"]
    assert meta["imported"] == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "layout": "tdmpc2-old",
        "size": "custom",
    }
    told = " ".join(capsys.readouterr().err.split())
    assert "suite mt30 in layout tdmpc2-old, of size custom: encoder 40 x 2, MLPs 48" in told
    parameters = sum(t.numel() for t in fixture().values())
    assert f"2 Q networks and policy prior, {parameters:,} parameters" in told


def test_task_embeddings_have_max_norm_1_as_in_the_original(tmp_path):
    state = fixture()
    state["_task_emb.weight"] = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))
    model = run_import(save_model(tmp_path / "a.pt", state), tmp_path / "m")
    norms = state["_task_emb.weight"].norm(dim=1)
    assert (norms > 1).all()
    state["_task_emb.weight"][:10] /= 20  # and some that are left as they are
    shorter = run_import(save_model(tmp_path / "b.pt", state), tmp_path / "n")
    for made, weight in ((model, model.task_emb.weight), (shorter, shorter.task_emb.weight)):
        task = torch.arange(30)
        expected = F.embedding(task, weight.clone(), max_norm=1.0)
        torch.testing.assert_close(made.task_embedding(task), expected, rtol=0, atol=1e-6)


def virtual(model: WorldModel) -> dict[str, Tensor]:
    """Weights of the model's shapes that take no room on disk: every tensor is one number."""
    return {
        published_key(name, "tdmpc2-old"): torch.zeros(()).expand(tensor.shape)
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "suite", "change"),
    [
        ("1M", "mt80", {}),
        ("5M", "mt80", {}),
        ("5M", "mt30", {"task_dim": 64}),
        ("5M", "walker-run", {"task_dim": 0}),
        ("19M", "mt80", {}),
        ("19M", "mt30", {"task_dim": 64, "latent_dim": 512}),
        ("48M", "mt30", {"task_dim": 64}),
        ("48M", "mt80", {}),
        pytest.param("317M", "mt80", {}, marks=pytest.mark.slow),
    ],
)
def test_published_sizes_are_recognized(name, suite, change, tmp_path):
    size = ModelSize(**{**vars(PUBLISHED_SIZES[name]), **change})
    tasks = get_suite(suite)
    with torch.device("meta"):
        model = WorldModel(size, tasks, q_and_prior=True)
    found = read_published(save_model(tmp_path / "a.pt", virtual(model)), tasks)
    assert found.size_name == name
    assert found.skeleton.size == size
    assert found.skeleton.has_q


def test_published_sizes_are_those_of_the_configs():
    for name, size in PUBLISHED_SIZES.items():
        config = OmegaConf.load(cli.config_directory() / "model" / f"{name}.yaml")
        assert size == ModelSize(**config)
        assert size_name(size, has_q=True) == name
        assert size_name(ModelSize(**{**vars(size), "num_q": 3}), has_q=False) == name
        assert size_name(ModelSize(**{**vars(size), "num_q": 3}), has_q=True) == "custom"
        assert size_name(ModelSize(**{**vars(size), "mlp_dim": 8}), has_q=True) == "custom"
    assert size_name(ModelSize(**{**vars(PUBLISHED_SIZES["48M"]), "latent_dim": 512}), True) == (
        "custom"
    )


def test_a_single_task_model(tmp_path):
    torch.manual_seed(0)
    made = WorldModel(ModelSize(24, 1, 16, 16, 0, 2), get_suite("walker-run"), q_and_prior=True)
    state = to_published(made)
    assert "_task_emb.weight" not in state
    assert "_action_masks" not in state
    path = save_model(tmp_path / "walker.pt", state)
    model = run_import(path, tmp_path / "m", "walker-run")
    obs, task = torch.randn(3, 24), torch.zeros(3, dtype=torch.int64)
    torch.testing.assert_close(model.encode(obs, task), made.eval().encode(obs, task))
    assert model.policy_prior(model.encode(obs, task), task)[0].shape == (3, 6)
    with pytest.raises(PwmError, match=r"model of 1 task with observations of 24 .* 30 tasks"):
        run_import(path, tmp_path / "n", "mt30")
    fit = "suite=walker-stand, suite=walker-walk, suite=walker-run"
    with pytest.raises(PwmError, match=f"give {fit}"):
        run_import(path, tmp_path / "n", "cheetah-run")


@pytest.mark.parametrize(
    ("suite", "sentence"),
    [
        ("mt80", "80 tasks with observations of 39 and actions of 6 entries; give suite=mt30"),
        ("walker-run", "1 task with observations of 24 and actions of 6 entries; give suite=mt30"),
        ("mt50", "50 tasks"),
        ("mt31", "did you mean 'mt30'"),
    ],
)
def test_a_wrong_suite_is_refused(suite, sentence, tmp_path):
    with pytest.raises(PwmError, match=sentence):
        run_import(CHECKPOINTS["tdmpc2-new"], tmp_path / "m", suite)
    assert not (tmp_path / "m").exists()


def test_tasks_in_another_order_are_noticed_where_the_file_has_masks(tmp_path):
    tasks = tuple(reversed(MT30.tasks))
    with pytest.raises(PwmError, match="its action masks differ"):
        read_published(CHECKPOINTS["tdmpc2-new"], Suite("backwards", tasks))


def without(*patterns):
    def change(state):
        return {k: v for k, v in state.items() if not any(re.match(p, k) for p in patterns)}

    return change


def replaced(key, make):
    return lambda state: {**state, key: make(state.get(key))}


@pytest.mark.parametrize("layout", CHECKPOINTS)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without(r"_dynamics\.1\.ln\.bias"), r"lacks '_dynamics\.1\.ln\.bias'"),
        (without(r"_pi\.2"), r"lacks '_pi\.2\.weight', '_pi\.2\.bias'"),
        (without(r"_pi"), r"lacks '_pi\.0\.weight'.* and 4 more keys"),
        (without(r"_target_Qs.*[16]"), r"lacks '_target_Qs"),
        (without(r"_reward"), r"lacks '_reward\.2\.weight'"),
        (without(r"_encoder\.state\.1"), r"lacks '_encoder\.state\.1\.weight'"),
        (without(r"_encoder"), r"lacks '_encoder\.state\.0\.weight'"),
        (replaced("_encoder.rgb.2.weight", lambda _: torch.zeros(2)), "has a pixel encoder"),
        (replaced("_decoder.0.weight", lambda _: torch.zeros(2)), "'_decoder.0.weight'"),
        (
            replaced("_termination.0.weight", lambda _: torch.zeros(2)),
            r"lacks '_termination\.0\.bias'",
        ),
        (replaced("_dynamics.3.weight", lambda _: torch.zeros(2, 2)), r"'_dynamics\.3\.weight'"),
        (
            replaced("_reward.1.bias", lambda v: v[:-1]),
            r"_reward\.1\.bias of shape \(47,\), and \(48,\) fits",
        ),
        (replaced("_reward.1.bias", lambda v: v * torch.nan), "no finite numbers"),
        (replaced("_reward.1.bias", lambda v: v.long()), "no finite numbers"),
        (replaced("_reward.1.bias", lambda v: 3), r"no numbers for _reward\.1\.bias"),
        (replaced("_dynamics.0.weight", lambda v: v[0]), "no matrix"),
        (replaced("_reward.2.weight", lambda v: v[:1]), "by regression"),
        (replaced("_encoder.state.2.weight", lambda v: v[:30]), "no multiple of 8"),
        (replaced("log_std_min", lambda _: torch.tensor(-5)), "log_std_min other than -10"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(layout, change, sentence, tmp_path):
    path = save_model(tmp_path / "a.pt", change(fixture(layout)))
    with pytest.raises(PwmError, match=sentence):
        run_import(path, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"weights": torch.zeros(2)}, 7])
def test_other_files_are_no_checkpoints(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(PwmError, match="is no checkpoint of TD-MPC2 or PWM"):
        run_import(tmp_path / "a.pt", tmp_path / "m")
    with pytest.raises(PwmError, match="is no checkpoint of TD-MPC2 or PWM"):
        run_import(CHUNK_2023, tmp_path / "m")


def test_half_precision_is_widened(tmp_path):
    state = {key: value.half() for key, value in fixture().items()}
    model = run_import(save_model(tmp_path / "a.pt", state), tmp_path / "m")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.reward_head[0].weight, state["_reward.0.weight"].float())


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.safetensors").touch()
    with pytest.raises(PwmError, match="holds no imported model"):
        run_import(CHECKPOINTS["tdmpc2-old"], tmp_path / "m")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["mine.safetensors"]
    run_import(CHECKPOINTS["tdmpc2-old"], tmp_path / "again")
    run_import(CHECKPOINTS["tdmpc2-new"], tmp_path / "again")  # what was imported is replaced


@pytest.mark.parametrize("placeholders", [False, True])
def test_export_writes_the_layout_of_the_original_code(placeholders, tmp_path):
    run_import(CHECKPOINTS["tdmpc2-old"], tmp_path / "m")
    export_checkpoint(ExportConfig(str(tmp_path / "m"), str(tmp_path / "x.pt"), placeholders))
    written = torch.load(tmp_path / "x.pt", weights_only=True)["model"]
    expected = fixture("tdmpc2-new")
    sizes = {key: written.pop(key) for key in list(written) if ".__" in key}
    assert sizes == {
        f"{prefix}.__{entry}": value
        for prefix in ("_Qs.params", "_detach_Qs_params", "_target_Qs_params")
        for entry, value in (("batch_size", torch.Size([2])), ("device", None))
    }
    if not placeholders:
        expected = {key: value for key, value in expected.items() if ".module." not in key}
    assert written.keys() == expected.keys()
    for key, value in expected.items():
        assert written[key].dtype == value.dtype, key
        assert written[key].shape == value.shape, key
        assert written[key].is_meta == value.is_meta, key
        assert value.is_meta or torch.equal(written[key], value), key


@pytest.mark.parametrize("suite", ["mt80", "quick", "pendulum-swingup"])
@pytest.mark.parametrize("q_and_prior", [True, False])
def test_what_is_exported_is_imported_bit_for_bit(suite, q_and_prior, tmp_path):
    torch.manual_seed(1)
    tasks = get_suite(suite)
    size = ModelSize(24, 1, 16, 16, 8 if len(tasks) > 1 else 0, 3)
    model = WorldModel(size, tasks, q_and_prior)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    save_checkpoint(tmp_path / "m", KIND, {"model": model.state_dict()}, model_meta(model))
    path = export_checkpoint(ExportConfig(str(tmp_path / "m"), str(tmp_path / "x.pt")))
    back = run_import(path, tmp_path / "back", suite)
    assert back.has_q == q_and_prior
    assert back.size == (size if q_and_prior else ModelSize(**{**vars(size), "num_q": 5}))
    assert back.suite == model.suite
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    again = export_checkpoint(ExportConfig(str(tmp_path / "back"), str(tmp_path / "y.pt")))
    first, second = (torch.load(p, weights_only=True)["model"] for p in (path, again))
    assert list(first) == list(second)


def test_models_that_the_layout_cannot_express_are_not_exported(tmp_path):
    for name, model in {
        "normalizes observations": WorldModel(TINY, MT30, normalize_obs=True),
        "simnorm_dim=4": WorldModel(ModelSize(40, 2, 48, 32, 64, 2, simnorm_dim=4), MT30),
        "vmax=20": WorldModel(ModelSize(40, 2, 48, 32, 64, 2, vmax=20.0), MT30),
    }.items():
        save_checkpoint(tmp_path / "m", KIND, {"model": model.state_dict()}, model_meta(model))
        with pytest.raises(PwmError, match=name):
            export_checkpoint(ExportConfig(str(tmp_path / "m"), str(tmp_path / "x.pt")))
        assert not (tmp_path / "x.pt").exists()


def test_export_overwrites_nothing(tmp_path):
    run_import(CHECKPOINTS["tdmpc2-old"], tmp_path / "m")
    (tmp_path / "x.pt").write_text("mine")
    with pytest.raises(PwmError, match="exists"):
        export_checkpoint(ExportConfig(str(tmp_path / "m"), str(tmp_path / "x.pt")))
    assert (tmp_path / "x.pt").read_text() == "mine"


def test_the_commands(tmp_path, capsys):
    source, model, file = CHECKPOINTS["tdmpc2-new"], tmp_path / "m", tmp_path / "x.pt"
    assert cli.main(["import", f"checkpoint={source}", "suite=mt30", f"out={model}"]) == 0
    assert cli.main(["export", f"checkpoint={model}", f"out={file}", "placeholders=true"]) == 0
    assert cli.main(["import", f"checkpoint={file}", "suite=mt30", f"out={tmp_path / 'n'}"]) == 0
    for name in ("import", "export"):
        assert cli.main([name, "--help"]) == 0
    assert "checkpoint" in capsys.readouterr().out
    assert cli.main(["import", f"checkpoint={source}", f"out={tmp_path / 'o'}"]) == 1
    assert "suite=" in capsys.readouterr().err


def test_two_imports_into_one_directory_exclude_each_other(tmp_path):
    config = ImportConfig(str(CHECKPOINTS["tdmpc2-new"]), "mt30", str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    with (
        DirectoryLock(tmp_path / "out"),
        pytest.raises(PwmError, match=f"being written by process {os.getpid()} on host"),
    ):
        import_checkpoint(config)
    import_checkpoint(config)
    import_checkpoint(config)


def test_a_termination_head_comes_along_both_ways(tmp_path):
    torch.manual_seed(2)
    suite = get_suite("pendulum-swingup")
    size = ModelSize(24, 1, 16, 16, 0, 3)
    model = WorldModel(size, suite, q_and_prior=True, episodic=True)
    save_checkpoint(tmp_path / "m", KIND, {"model": model.state_dict()}, model_meta(model))
    path = export_checkpoint(ExportConfig(str(tmp_path / "m"), str(tmp_path / "x.pt")))
    written = torch.load(path, weights_only=True)["model"]
    assert {key for key in written if "termination" in key} == {
        f"_termination.{layer}.{name}"
        for layer, names in ((0, 4), (1, 4), (2, 2))
        for name in ("weight", "bias", "ln.weight", "ln.bias")[:names]
    }
    assert written["_termination.2.weight"].shape == (1, 16)
    back = run_import(path, tmp_path / "back", suite.name)
    assert back.episodic
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    alone = WorldModel(size, suite, episodic=True)
    with pytest.raises(PwmError, match="q_and_prior=true"):
        to_published(alone)
