"""What is pushed comes back the same; faults of the hub are one sentence each.

The hub is a directory here: nothing is asked of the real service.
"""

from __future__ import annotations

import inspect
import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from deployable import ARM, CHEETAH, latent_policy, observation_policy, world_model

from pwm.core.errors import PwmError
from pwm.hub.pull import PullConfig, pull
from pwm.hub.push import PushConfig, push
from pwm.models.policy import load_policy
from pwm.models.policy_directory import policy_tasks
from pwm.models.world_model import KIND, load_world_model, model_meta
from pwm.runtime.checkpoint import read_meta, save_checkpoint

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
from huggingface_hub import errors  # noqa: E402

MT30 = Path(__file__).parents[3] / "checkpoints" / "mt30"


class FakeHub:
    """Takes the calls of HfApi and keeps the repository in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fault: Exception | None = None
        self.calls: list[tuple[str, tuple, dict]] = []

    def __call__(self, **library) -> FakeHub:
        assert library["library_name"] == "pwm"
        return self

    def _called(self, name: str, *args, **kwargs) -> None:
        self.calls.append((name, args, kwargs))
        if self.fault is not None:
            raise self.fault

    def create_repo(self, *args, **kwargs) -> None:
        self._called("create_repo", *args, **kwargs)

    def upload_folder(self, **kwargs) -> SimpleNamespace:
        self._called("upload_folder", **kwargs)
        for path in list(self.directory.rglob("*")):
            name = path.relative_to(self.directory).as_posix()
            if path.is_file() and any(fnmatch(name, p) for p in kwargs["delete_patterns"]):
                path.unlink()
        shutil.copytree(kwargs["folder_path"], self.directory, dirs_exist_ok=True)
        return SimpleNamespace(commit_url="https://hub/a/b/commit/1")

    def snapshot_download(self, *args, **kwargs) -> None:
        self._called("snapshot_download", *args, **kwargs)
        assert not list(kwargs["local_dir"].iterdir())  # or the library may take what is there
        for path in self.directory.rglob("*"):
            name = path.relative_to(self.directory)
            if path.is_file() and any(fnmatch(str(name), p) for p in kwargs["allow_patterns"]):
                (kwargs["local_dir"] / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kwargs["local_dir"] / name)
        (kwargs["local_dir"] / ".cache" / "huggingface").mkdir(parents=True)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    fake.directory.mkdir()
    monkeypatch.setitem(vars(huggingface_hub), "HfApi", fake)
    monkeypatch.setitem(vars(huggingface_hub), "get_token", lambda: "token")
    return fake


def sent(hub: FakeHub, source: Path, **settings) -> set[str]:
    """The files of the repository after a push."""
    push(PushConfig(source=str(source), repo="a/b", **settings))
    return {p.relative_to(hub.directory).as_posix() for p in hub.directory.rglob("*.*")}


def front(hub: FakeHub) -> dict:
    return yaml.safe_load((hub.directory / "README.md").read_text().split("---\n")[1])


def came(tmp_path: Path) -> Path:
    return pull(PullConfig(repo="a/b", out=str(tmp_path / "out")))


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    expected = other.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in one.state_dict().items())


def test_policies_with_a_shared_encoder(hub, tmp_path):
    for task in (CHEETAH, ARM):
        latent_policy(task).save(tmp_path / "policies" / task.name, compact=True)
    (tmp_path / "policies" / "log.txt").write_text("of training")
    files = sent(hub, tmp_path / "policies")
    assert "log.txt" not in files and "arm/checkpoint.json" in files
    out = came(tmp_path)
    assert list(policy_tasks(out)) == ["cheetah-run", "arm"]
    assert same_weights(load_policy(out / "arm"), load_policy(tmp_path / "policies" / "arm"))
    assert not (out / ".cache").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub", "out", "policies"]


def test_one_policy_of_a_directory_takes_its_encoder_along(hub, tmp_path):
    for task in (CHEETAH, ARM):
        latent_policy(task).save(tmp_path / "policies" / task.name, compact=True)
    sent(hub, tmp_path / "policies" / "arm", license="mit", datasets=["a/rows"])
    assert list(policy_tasks(came(tmp_path))) == ["arm"]
    assert front(hub) == {
        "library_name": "pwm",
        "pipeline_tag": "reinforcement-learning",
        "license": "mit",
        "tags": ["robotics", "reinforcement-learning", "gymnasium"],
        "datasets": ["a/rows"],
    }
    page = (hub.directory / "README.md").read_text()
    assert "pwm pull repo=a/b out=b\npwm evaluate policy=b out=runs/b\n" in page
    assert "| arm | 3 | 2 |" in page


def test_a_pretraining_run_goes_without_its_training_state(hub, tmp_path):
    model = world_model(CHEETAH)
    state = {"model": model.state_dict(), "optimizer": {"moment": torch.ones(3)}}
    step = tmp_path / "run" / "checkpoints" / "step_000000007"
    save_checkpoint(step, KIND, state, {**model_meta(model), "step": 7})
    files = sent(hub, tmp_path / "run")
    assert not any("optimizer" in file for file in files)
    out = came(tmp_path)
    assert same_weights(load_world_model(out), model)
    assert read_meta(out, KIND)["step"] == 7
    assert "world-model" in front(hub)["tags"]


def test_the_shipped_bundle_keeps_its_files_and_its_scores(hub, tmp_path):
    bundle = tmp_path / "mt30"
    for part in ("world_model", "policies/acrobot-swingup"):
        shutil.copytree(MT30 / part, bundle / part)
    shared = next((MT30 / "policies").glob("encoder-*"))
    shutil.copyfile(shared, bundle / "policies" / shared.name)
    shutil.copyfile(MT30 / "card.json", bundle / "card.json")
    files = sent(hub, bundle)
    out = came(tmp_path)
    for name in files - {"README.md"}:
        assert (out / name).read_bytes() == (bundle / name).read_bytes()
    facts = json.loads((MT30 / "card.json").read_text())
    (index,) = front(hub)["model-index"]
    assert len(index["results"]) == 31
    mean = index["results"][-1]
    assert mean["dataset"]["name"] == "mt30"
    assert mean["metrics"][0]["value"] == pytest.approx(facts["scores"]["mean"], abs=0.005)
    assert "checkpoint=b/world_model" in (hub.directory / "README.md").read_text()


def test_what_an_earlier_push_left_goes_with_the_next_and_other_files_stay(hub, tmp_path):
    for task in (CHEETAH, ARM):
        observation_policy(task).save(tmp_path / "policies" / task.name)
    sent(hub, tmp_path / "policies")
    (hub.directory / "video.mp4").write_text("a film")
    files = sent(hub, tmp_path / "policies" / "arm")
    assert "video.mp4" in files and not any(file.startswith("cheetah-run") for file in files)
    assert not (came(tmp_path) / "video.mp4").exists()


def test_damaged_files_leave_nothing_behind(hub, tmp_path):
    observation_policy(ARM).save(tmp_path / "arm")
    sent(hub, tmp_path / "arm")
    (tensors,) = (hub.directory / "arm").glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(PwmError, match="its checksum differs"):
        came(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["arm", "hub"]
    with pytest.raises(PwmError, match="its checksum differs"):
        push(PushConfig(source=str(hub.directory / "arm"), repo="a/b"))


def test_a_repository_without_checkpoints(hub, tmp_path):
    (hub.directory / "README.md").write_text("nothing")
    with pytest.raises(PwmError, match="no policy and no world model"):
        came(tmp_path)


def test_a_directory_that_is_there_is_kept(hub, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(PwmError, match="is there already"):
        came(tmp_path)
    assert hub.calls == []


def response(status: int) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers={}, request=None)


FAULTS = {
    "the hub has no repository a/b": errors.RepositoryNotFoundError("?", response=response(404)),
    "open to those alone": errors.GatedRepoError("?", response=response(403)),
    "a/b has no revision v9": errors.RevisionNotFoundError("?", response=response(404)),
    "does not let you do this": errors.HfHubHTTPError("Forbidden", response=response(403)),
    r"failed at a/b \(502 Bad Gateway\)": errors.HfHubHTTPError(
        "502 Bad Gateway\n\nmore", response=response(502)
    ),
    "HF_HUB_OFFLINE is set": errors.OfflineModeIsEnabled("?"),
    r"cannot be reached \(no route\)": errors.HTTPError("no route"),
    "cannot be reached .no snapshot": errors.LocalEntryNotFoundError("no snapshot"),
    "is no name of a repository": errors.HFValidationError("?"),
    "no token of the hub is set": errors.LocalTokenNotFoundError("?"),
}


@pytest.mark.parametrize("words", FAULTS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_hub_says_is_one_sentence(hub, words, wrapped, tmp_path):
    """Also where the library wraps it, which it does with what keeps a download from beginning."""
    hub.fault = FAULTS[words]
    if wrapped and isinstance(hub.fault, errors.OfflineModeIsEnabled | errors.HTTPError):
        hub.fault = errors.LocalEntryNotFoundError("no snapshot on the disk, set 'X=0'")
        hub.fault.__cause__ = FAULTS[words]
    with pytest.raises(PwmError, match=words) as told:
        pull(PullConfig(repo="a/b", revision="v9", out=str(tmp_path / "out")))
    assert "\n" not in str(told.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub"]


def test_no_one_is_logged_in(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(vars(huggingface_hub), "get_token", lambda: None)
    observation_policy(ARM).save(tmp_path / "arm")
    with pytest.raises(PwmError, match="no token of the hub is set, and pushing needs one"):
        push(PushConfig(source=str(tmp_path / "arm"), repo="a/b"))
    assert hub.calls == []


@pytest.mark.parametrize("repo", ["mt30", "/mt30", "a/b/c", "a/"])
def test_a_repository_needs_an_owner_and_a_name(repo, tmp_path):
    with pytest.raises(PwmError, match="give user/name"):
        pull(PullConfig(repo=repo, out=str(tmp_path / "out")))


def test_the_calls_are_those_that_the_library_takes(tmp_path, monkeypatch):
    from huggingface_hub import HfApi

    fake = FakeHub(tmp_path / "hub")
    fake.directory.mkdir()
    monkeypatch.setitem(vars(huggingface_hub), "HfApi", fake)
    monkeypatch.setitem(vars(huggingface_hub), "get_token", lambda: "token")
    observation_policy(ARM).save(tmp_path / "arm")
    sent(fake, tmp_path / "arm")
    came(tmp_path)
    assert [name for name, _, _ in fake.calls] == [
        "create_repo", "upload_folder", "snapshot_download",
    ]  # fmt: skip
    for name, args, kwargs in fake.calls:
        inspect.signature(getattr(HfApi, name)).bind(None, *args, **kwargs)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(PwmError, match=r"pip install 'pwm-worldmodels\[hub\]'"):
        pull(PullConfig(repo="a/b", out=str(tmp_path / "out")))
