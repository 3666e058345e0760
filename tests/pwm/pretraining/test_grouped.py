"""A world model per group, and every command on a directory of them."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pwm.analysis.analyze import analyze
from pwm.analysis.config import AnalyzeConfig
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.evaluation.agents import BatchedAgent
from pwm.evaluation.mppi import PlannerConfig
from pwm.evaluation.mppi_agent import GatedAgent
from pwm.evaluation.planning import PLANNER, Planning
from pwm.hub.contents import gather
from pwm.interop.export_checkpoint import ExportConfig, export_checkpoint
from pwm.models.policy import load_policy
from pwm.models.world_model import load_world_model
from pwm.models.world_models import load_world_models
from pwm.pretraining.config import PretrainConfig
from pwm.reporting.run_figures import pretraining_figures
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.run_dir import read_config

TINY = PlannerConfig(iterations=1, samples=8, policy_trajectories=2, elites=4, horizon=2)


@pytest.fixture(scope="module")
def grouped(toy, tmp_path_factory) -> Path:
    """Two world models, of a task each; not to be written into."""
    out = tmp_path_factory.mktemp("grouped") / "run"
    assert main(toy.pretrain(out, "groups=2", "q_and_prior=true")) == 0
    return out


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_world_model(path).state_dict()


def require_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_one_group_is_the_plain_run(toy, toy_world_model, tmp_path):
    assert main(toy.pretrain(tmp_path / "out", "groups=1")) == 0
    require_equal(state(tmp_path / "out"), state(toy_world_model))
    found = (tmp_path / "out" / "diagnostics.json").read_bytes()
    assert json.loads(found) == json.loads((toy_world_model / "diagnostics.json").read_bytes())


@pytest.mark.slow
def test_a_member_is_the_plain_run_of_its_tasks_and_share_of_the_steps(toy, grouped, tmp_path):
    words = toy.pretrain(tmp_path / "out", "suite=pendulum-swingup", "steps=12", "q_and_prior=true")
    assert main(words) == 0
    require_equal(state(tmp_path / "out"), state(grouped / "group_01"))
    require_equal(
        load_world_model(grouped, tasks=["pendulum-swingup"]).state_dict(), state(tmp_path / "out")
    )
    own = read_config(grouped / "group_00")
    assert (own["suite"], own["steps"], own["groups"]) == (["reacher-easy"], 12, None)
    report = json.loads((grouped / "diagnostics.json").read_bytes())
    assert list(report["tasks"]) == list(toy.tasks)
    assert report["step"] == 24


def test_a_run_goes_on_and_refuses_other_groups(toy, grouped, tmp_path, capsys):
    out = tmp_path / "out"
    file = tmp_path / "groups.json"
    file.write_text(json.dumps({"groups": [["pendulum-swingup"], ["reacher-easy"]]}))
    words = toy.pretrain(out, f"groups={file}", "q_and_prior=true")
    assert main(words) == 0
    require_equal(state(out / "group_00"), state(grouped / "group_01"))
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().err.count("already; it is kept") == 2
    file.write_text(json.dumps({"groups": [["pendulum-swingup", "reacher-easy"]]}))
    assert main(words) == 1
    assert "was made before groups= changed" in capsys.readouterr().err
    assert main(toy.pretrain(out, "q_and_prior=true")) == 1
    assert f"groups: {file} -> None" in capsys.readouterr().err


@pytest.mark.parametrize("groups", [0, True, 1.5, [2]])
def test_groups_that_are_no_number_and_no_file(toy, tmp_path, groups):
    config = PretrainConfig(data=str(toy.data), out=str(tmp_path / "out"), groups=groups)
    with pytest.raises(PwmError, match=r"groups=.* must be a number of groups"):
        config.validate()
    with pytest.raises(PwmError, match="there is no"):
        dataclasses.replace(config, groups=str(tmp_path / "no.json")).validate()


@pytest.mark.slow
def test_extraction_from_several_world_models_is_that_from_each(toy, grouped, tmp_path):
    assert main(toy.extract(grouped, tmp_path / "all")) == 0
    for number, name in enumerate(toy.tasks):
        member = grouped / f"group_{number:02d}"
        assert main(toy.extract(member, tmp_path / name, f"tasks={name}")) == 0
        both = [load_policy(tmp_path / which / name) for which in ("all", name)]
        require_equal(both[0].state_dict(), both[1].state_dict())
        critics = [
            load_checkpoint(tmp_path / which / name, "policy").tensors["critic"]
            for which in ("all", name)
        ]
        require_equal(*critics)


def test_policies_are_valued_in_the_latents_of_their_own_world_models(toy, grouped, tmp_path):
    policies = tmp_path / "policies"
    assert main(toy.extract(grouped, policies, "learner.iterations=1")) == 0
    words = ["estimate", f"policies={policies}", f"data={toy.data}", "device=cpu"]
    words += ["estimate.features=8", "estimate.rows=100"]

    def estimated(checkpoint: Path, *more: str) -> dict[str, dict]:
        out = tmp_path / checkpoint.name
        assert main([*words, f"checkpoint={checkpoint}", f"out={out}", *more]) == 0
        return json.loads((out / "estimates.json").read_bytes())["tasks"]

    found = estimated(grouped)
    for number, name in enumerate(toy.tasks):
        assert found[name] == estimated(grouped / f"group_{number:02d}", f"tasks={name}")[name]


def test_policies_in_the_place_of_a_world_model_are_named(toy, grouped, tmp_path):
    policies = tmp_path / "policies"
    assert main(toy.extract(grouped, policies, "learner.iterations=1")) == 0
    for path in (policies, policies / toy.tasks[0]):
        analysis = AnalyzeConfig(str(path), str(toy.data), str(tmp_path / "a"), device="cpu")
        for call in (partial(analyze, analysis), partial(load_world_models, path)):
            with pytest.raises(PwmError, match=f"a world model is wanted; give {grouped}"):
                call()


def test_what_a_policy_is_made_of_is_its_own_world_model(toy, grouped, tmp_path):
    @dataclasses.dataclass
    class Settings:
        checkpoint: str = dataclasses.field(default="", metadata={"input_path": True})

    found = inputs_made_of(Settings(str(grouped)), list(toy.tasks))
    assert list(found) == [f"checkpoint= ({name})" for name in toy.tasks]
    assert len({*found.values()}) == 2
    assert list(inputs_made_of(Settings(str(grouped)))) == ["checkpoint="]


def test_one_is_opened_by_task_and_all_are_never_opened_as_one(toy, grouped):
    assert load_world_model(grouped, tasks=["pendulum-swingup"]).suite.names == toy.tasks[1:]
    for tasks in (None, toy.tasks, ["walker-run"]):
        with pytest.raises(
            PwmError, match=r"2 world models, and none is for all tasks .* give one"
        ):
            load_world_model(grouped, tasks=tasks)
    models = load_world_models(grouped)
    assert models.suite.names == toy.tasks
    parts = models.split(list(models.suite)[::-1])
    assert [[task.name for task in tasks] for _, tasks in parts] == [[name] for name in toy.tasks]
    with pytest.raises(PwmError, match="'walker-run' is not in suite"):
        models.of("walker-run")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"members": []}', '{"members": [{"directory": "../x", "tasks": ["a"]}]}',
     '{"members": [{"directory": "x", "tasks": [1]}]}'],
)  # fmt: skip
def test_a_damaged_list_of_world_models(tmp_path, content):
    (tmp_path / "groups.json").write_text(content)
    with pytest.raises(PwmError, match=r"groups.json is damaged"):
        load_world_models(tmp_path)


def test_a_member_that_does_not_know_its_task(toy, grouped, tmp_path):
    (tmp_path / "group_00").symlink_to(grouped / "group_00")
    member = {"directory": "group_00", "tasks": ["walker-run"]}
    (tmp_path / "groups.json").write_text(json.dumps({"members": [member]}))
    with pytest.raises(PwmError, match="does not know walker-run"):
        load_world_models(tmp_path)


def test_each_task_is_planned_for_on_its_own_world_model(toy, grouped, tmp_path):
    """Both at once act as each alone does."""
    models = load_world_models(grouped)
    gated = Planning(PLANNER, models, models.suite, {}, tmp_path).agent(TINY, {})
    assert isinstance(gated, GatedAgent)
    waiting, alone = [], []
    for number, task in enumerate(models.suite):
        obs = np.random.default_rng(number).standard_normal((2, task.obs_dim))
        waiting.append((gated.begin(task, [1, 2]), obs))
        of_one = load_world_models(grouped / f"group_{number:02d}")
        agent = Planning(PLANNER, of_one, of_one.suite, {}, tmp_path).agent(TINY, {})
        assert isinstance(agent, BatchedAgent)
        assert not isinstance(agent, GatedAgent)
        assert agent.identity(task) == gated.identity(task)
        alone += agent.act([(agent.begin(task, [1, 2]), obs)])
    for found, wanted in zip(gated.act(waiting[::-1])[::-1], alone, strict=True):
        assert np.array_equal(found, wanted)


def test_a_task_is_deployed_from_its_world_model(toy, grouped, tmp_path):
    words = ["deploy", "task=pendulum-swingup", "to=numpy"]
    member = grouped / "group_01"
    for path, out in ((grouped, tmp_path / "all"), (member, tmp_path / "one")):
        assert main([*words, f"checkpoint={path}", f"out={out}"]) == 0
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "all").iterdir())
    for name in files:
        if not name.endswith(".json"):
            assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_the_report_draws_the_curves_of_all_world_models(grouped, tmp_path):
    (tmp_path / "world_model").symlink_to(grouped)
    titles = [figure["title"] for figure in pretraining_figures(tmp_path)]
    assert "reward_loss" in titles
    assert "reward_loss of every task" in titles


def test_a_new_run_begins_with_the_world_model_of_its_tasks(toy, grouped, tmp_path):
    words = toy.pretrain(tmp_path / "out", f"init={grouped}", "suite=pendulum-swingup", "lr=0")
    words += ["lr_final=0", "steps=1"]
    assert main(words) == 0
    found, wanted = state(tmp_path / "out"), state(grouped / "group_01")
    moving = {name for name in found if name.startswith("q_target")}  # towards Q, whatever lr is
    require_equal(*({n: x for n, x in s.items() if n not in moving} for s in (found, wanted)))


def test_what_is_of_one_world_model_asks_for_one(toy, grouped, tmp_path):
    analysis = AnalyzeConfig(str(grouped), str(toy.data), str(tmp_path / "a"), device="cpu")
    pushed, exported = (
        partial(gather, grouped, tmp_path / "b"),
        ExportConfig(str(grouped), str(tmp_path / "c.pt")),
    )
    for call in (partial(analyze, analysis), pushed, partial(export_checkpoint, exported)):
        with pytest.raises(PwmError, match=r"give one of them \(group_00: reacher-easy; group_01"):
            call()
    one = dataclasses.replace(analysis, tasks="pendulum-swingup")
    with pytest.raises(PwmError, match="share one task, pendulum-swingup"):
        analyze(one)
