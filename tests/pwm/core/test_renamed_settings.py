from __future__ import annotations

from importlib import import_module

import pytest

from pwm.cli.commands import COMMANDS
from pwm.core.renamed_settings import (
    RENAMED,
    current_name,
    tell_renames,
    with_current_names,
)
from pwm.core.settings import block_type, block_types
from pwm.extraction.config import ActorCriticConfig, ExtractConfig
from pwm.pipelines.grow import GrowConfig
from pwm.pipelines.quickstart import QuickstartConfig


def configs(kind: type) -> dict[str, type]:
    found = {kind.__name__: kind}
    for block in block_types(kind).values():
        found |= configs(block)
    return found


ALL = {
    name: found
    for command in COMMANDS.values()
    for name, found in configs(getattr(import_module(command.module), command.config)).items()
}


@pytest.mark.parametrize(
    ("config", "old", "new"),
    [(config, old, new) for config, names in RENAMED.items() for old, new in names.items()],
)
def test_the_table_leads_from_names_that_are_gone_to_names_that_are_there(config, old, new):
    kind = ALL[config]
    assert old not in kind.__dataclass_fields__
    *blocks, last = new.split(".")
    holder = block_type(kind, ".".join(blocks)) if blocks else kind
    assert last in holder.__dataclass_fields__


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (ExtractConfig, "learner.clone_weight", "learner.bc.weight"),
        (GrowConfig, "extract.learner.critic_passes", "extract.learner.critic.iterations"),
        (QuickstartConfig, "extract.learner.betas", "extract.learner.optim.betas"),
        (ExtractConfig, "finetune.learner.lr_final", "finetune.learner.lr_final"),
        (ExtractConfig, "learner.horizon", "learner.horizon"),
        (ExtractConfig, "learner.no_such", "learner.no_such"),
        (ExtractConfig, "hydra.launcher.n_jobs", "hydra.launcher.n_jobs"),
    ],
)
def test_a_dotted_name_of_any_time_is_understood(kind, old, new):
    assert current_name(kind, old) == new
    assert current_name(kind, new) == new


def test_a_record_of_settings_gets_the_names_of_today():
    before = {
        "seed": 3,
        "learner": {"horizon": 8, "clone_weight": 0.3, "clone_best": 0.5, "actor_lr": 1e-3},
        "finetune": {"learner": {"lr_final": 1e-5}},
    }
    now, renames = with_current_names(ExtractConfig, before)
    assert now == {
        "seed": 3,
        "learner": {
            "horizon": 8,
            "bc": {"weight": 0.3, "top_fraction": 0.5},
            "optim": {"actor_lr": 1e-3},
        },
        "finetune": {"learner": {"lr_final": 1e-5}},
    }
    assert ("learner.clone_best", "learner.bc.top_fraction") in renames
    assert len(renames) == 3
    assert with_current_names(ExtractConfig, now) == (now, [])


def test_of_both_names_the_one_of_today_counts():
    both = {"learner": {"bc": {"weight": 2.0}, "clone_weight": 1.0, "clone_first": 9}}
    now, _ = with_current_names(ExtractConfig, both)
    assert now == {"learner": {"bc": {"weight": 2.0, "warmup_steps": 9}}}


def test_one_line_names_what_changed(capsys):
    tell_renames([])
    assert capsys.readouterr().err == ""
    renames = [(f"old{i}", f"new{i}") for i in range(5)]
    tell_renames(renames[:2])
    tell_renames(renames, "run/config.yaml")
    assert capsys.readouterr().err.splitlines() == [
        "pwm: old0 is now new0, old1 is now new1; the old names still work.",
        "pwm: old0 is now new0, old1 is now new1, old2 is now new2, and 2 more in "
        "run/config.yaml; the old names still work.",
    ]


def test_a_config_made_with_an_old_name_says_the_new_one():
    with pytest.raises(TypeError, match=r"has no 'clone_weight'; it is bc.weight now"):
        ActorCriticConfig(clone_weight=0.3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        ActorCriticConfig(no_such=1)
