"""Every kind of file, damaged a few times; the script's own default is fifty times each."""

from __future__ import annotations

import shutil
from random import Random

import damage
import pytest
from mutations import Target, plain, targets, try_target

from pwm.core.errors import PwmError
from pwm.models.policy import load_policy
from pwm.models.world_model import load_world_model

KINDS = 15


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> list[Target]:
    return targets(tmp_path_factory.mktemp("genuine"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(KINDS))
def test_damaged_files_are_read_correctly_or_refused(number, kinds):
    assert len(kinds) == KINDS
    tally = try_target(kinds[number], 6, seed=1)
    assert tally.failures == []
    assert tally.tried == tally.read + tally.refused == 6


def test_a_reader_that_fails_is_noticed(tmp_path):
    """The script can find what it looks for."""
    file = tmp_path / "file.txt"
    file.write_bytes(bytes(100))

    def careless(path):
        data = path.read_bytes()
        if len(data) < 100:
            raise IndexError("too short")
        return data

    tally = try_target(Target("careless", file, damage.damage_file, careless), 20, seed=0)
    assert any("IndexError" in line for line in tally.failures)
    assert any("other content" in line for line in tally.failures)

    def unpickles(path):
        import pickle

        return pickle.loads(pickle.dumps(Random))

    tally = try_target(Target("unpickles", file, damage.damage_file, unpickles), 2, seed=0)
    assert all("executed" in line for line in tally.failures)
    assert len(tally.failures) == 2


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("meta", "size", "mlp_dim"), 2**40),
        (("meta", "size", "encoder_layers"), 2**40),
        (("meta", "size", "latent_dim"), 64),
        (("meta", "size", "simnorm_dim"), "eight"),
        (("meta", "size", "surprise"), 1),
        (("meta", "suite", "tasks"), []),
        (("meta", "suite", "tasks", 0, "obs_dim"), 2**62),
        (("meta", "suite", "tasks", 0, "name"), "../../elsewhere"),
        (("meta", "q_and_prior"), True),
        (("groups", "model", "file"), "../model.safetensors"),
        (("groups", "model", "file"), "/etc/hostname"),
    ],
)
def test_an_edited_world_model_is_refused_before_it_costs_memory(place, value, kinds, tmp_path):
    genuine = next(kind.path for kind in kinds if kind.name == "world model")
    edited = tmp_path / "edited"
    shutil.copytree(genuine, edited)
    damage.set_in_index(edited, place, value)
    with pytest.raises(PwmError) as caught:
        load_world_model(edited)
    assert "\n" not in str(caught.value)
    assert plain(load_world_model(genuine).state_dict())


def test_an_edited_policy_is_refused(kinds, tmp_path):
    genuine = next(kind.path for kind in kinds if kind.name == "policy and critic")
    for place, value in (
        (("meta", "task", "env_id"), "os:system"),
        (("meta", "task", "action_dim"), 0),
        (("meta", "architecture", "actor", "actor"), [2**30]),
        (("meta", "architecture", "obs_dim"), 2**40),
    ):
        edited = tmp_path / "edited"
        shutil.copytree(genuine, edited, dirs_exist_ok=True)
        damage.set_in_index(edited, place, value)
        with pytest.raises(PwmError, match="cannot be used"):
            load_policy(edited)
