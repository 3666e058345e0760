"""Checkpoints of TD-MPC2 and PWM: their key layouts, and the sizes that their shapes tell.

A checkpoint is one ``torch.save`` of ``{"model": state dict}``, of the state dict itself or of an
agent that has one. Three layouts are in circulation once keys are plain
(:mod:`pwm.interop.checkpoint_keys`), and all hold the same networks::

    here              tdmpc2-old             tdmpc2-new                     pwm
    task_emb          _task_emb              _task_emb                      _task_emb
    encoder           _encoder.state         _encoder.state                 _encoder
    dynamics          _dynamics              _dynamics                      _dynamics
    reward_head       _reward                _reward                        _reward
    termination_head  none                   _termination                   none
    prior             _pi                    _pi                            none
    q_ensemble        _Qs.params.N           _Qs.params.LAYER.NAME          none
    q_target          _target_Qs.params.N    _target_Qs_params.LAYER.NAME   none

with N = 4 LAYER + 0 (weight), 1 (bias), 2 (ln.weight), 3 (ln.bias). A model of a single task has
no task embedding, and one that was not trained with ``episodic=true`` no termination head. The new
layout repeats the Q ensemble as ``_detach_Qs_params`` and has action masks, the bounds of the
prior's log-std, and, depending on the tensordict release that wrote it, batch sizes and devices
(``__batch_size``, ``__device``) or tensors without content (``.module.``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pwm.core.counted import counted
from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Suite
from pwm.interop.checkpoint_keys import model_entries
from pwm.interop.pickled_records import running_moments
from pwm.interop.torch_archive import TorchFile
from pwm.models.actor_critic import action_masks
from pwm.models.sizes import size_name
from pwm.models.world_model import ModelSize, WorldModel

Layout = Literal["tdmpc2-old", "tdmpc2-new", "pwm"]

_NAMES = ("weight", "bias", "ln.weight", "ln.bias")
_NETWORKS = {
    "task_emb": "_task_emb",
    "encoder": "_encoder.state",
    "dynamics": "_dynamics",
    "reward_head": "_reward",
    "termination_head": "_termination",
    "prior": "_pi",
    "q_ensemble": "_Qs.params",
    "q_target": "_target_Qs_params",
}
_RMS_EPSILON, _RMS_CLIP = 1e-5, 5  # of PWM's normalization by running moments
_LOG_STD = {"log_std_min": -10, "log_std_dif": 12}
_REPEATED = re.compile(
    r"_detach_Qs(_params|\.params|\.module)\..*|_target_Qs\.(params\.\d+\.\D.*|module\..*)"
    r"|_Qs\.module\..*|.*\.__(batch_size|device)"
)


@dataclass(frozen=True)
class PublishedModel:
    """A world model read from a published checkpoint."""

    layout: Layout  # how the file names its keys
    size_name: str  # ``1M`` to ``317M``, or ``custom``
    skeleton: WorldModel  # the model without weights (on the meta device)
    state: dict[str, Tensor]  # its weights, float32
    notes: tuple[str, ...] = ()  # sentences on what was left out or made up


def read_published(path: Path, suite: Suite) -> PublishedModel:
    """Read a world model that TD-MPC2 or PWM wrote, for the suite that it was trained on.

    Raises:
        PwmError: if the file cannot be read safely, is no such model, lacks something, or was
            made for other tasks.
    """
    file = TorchFile(path)
    for _ in file.verify():  # weights are mapped, so a flipped bit would go unnoticed
        pass
    notes: list[str] = []
    entries = _completed(_state_dict(file), notes)
    layout = _layout(entries)
    has_q = any(key.startswith(("_pi.", "_Qs.params.", "_target_Qs")) for key in entries)
    size, obs_dim, action_dim = _sizes(path, entries, layout)
    tasks = len(entries["_task_emb.weight"]) if size.task_dim else None
    _check_suite(path, suite, tasks, obs_dim, action_dim)
    moments = _observation_moments(file, suite, notes)
    episodic = any(key.startswith("_termination.") for key in entries)
    with torch.device("meta"):
        skeleton = WorldModel(
            size, suite, has_q, bool(moments), wrap_angles=not moments, episodic=episodic
        )
    keys = {n: published_key(n, layout) for n in skeleton.state_dict() if n not in moments}
    _require(path, entries, keys.values())
    known = {*keys.values(), "_action_masks", *_LOG_STD}
    if unknown := [k for k in entries if k not in known and not _REPEATED.fullmatch(k)]:
        raise PwmError(
            f"{path} has {_listed(unknown)}, which no model of its sizes has; it is another kind "
            "of model, or one of a newer version."
        )
    state = _apart({name: _weights(path, entries, key) for name, key in keys.items()}) | moments
    for name, expected in skeleton.state_dict().items():
        if name in keys and state[name].shape != expected.shape:
            raise PwmError(
                f"{path} has {keys[name]} of shape {tuple(state[name].shape)}, and "
                f"{tuple(expected.shape)} fits its other sizes."
            )
    _check_buffers(path, entries, suite)
    return PublishedModel(layout, size_name(size, has_q), skeleton.eval(), state, tuple(notes))


def _state_dict(file: TorchFile) -> dict[str, Any]:
    entries = model_entries(file.path, file.content)
    if entries is None:
        raise PwmError(
            f"{file.path} is no checkpoint of TD-MPC2 or PWM: it has none of _encoder, _dynamics "
            "and _reward; give a published world model."
        )
    if any(key.startswith("_encoder.rgb.") for key in entries):
        raise PwmError(
            f"{file.path} has a pixel encoder (_encoder.rgb); only models of state observations"
            " can be imported."
        )
    return entries


def _completed(entries: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The entries with a target Q ensemble, which is the Q ensemble where the file has none."""
    own = {key: value for key, value in entries.items() if key.startswith("_Qs.params.")}
    if not own or any(key.startswith("_target_Qs") for key in entries):
        return entries
    notes.append("It has no target Q networks; they begin as copies of its Q networks.")
    old = _layout(entries) == "tdmpc2-old"
    target = "_target_Qs.params." if old else "_target_Qs_params."
    copies = {key.replace("_Qs.params.", target): value for key, value in own.items()}
    return entries | copies


def _observation_moments(file: TorchFile, suite: Suite, notes: list[str]) -> dict[str, Tensor]:
    """Mean and scale of observations, (tasks, obs_dim) each, of an agent that normalizes them."""
    agent = file.content if isinstance(file.content, dict) else {}
    if agent.get("rew_rms") is not None:
        notes.append("It was trained on normalized rewards (rew_rms), and predicts such.")
    if agent.get("obs_rms") is None:
        return {}
    found = running_moments(agent["obs_rms"])
    if found is None:
        raise PwmError(
            f"{file.path} normalizes observations by an obs_rms without a mean and a var of "
            "numbers, which is not read; save it with them."
        )
    mean, var = found
    finite = bool(np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0).all())
    if mean.shape != (suite.obs_dim,) or var.shape != mean.shape or not finite:
        raise PwmError(
            f"{file.path} has obs_rms with mean of shape {mean.shape} and variance of shape "
            f"{var.shape}, where finite moments of the suite's {suite.obs_dim} entries belong."
        )
    notes.append(
        f"Its obs_rms is the normalization of observations; it clipped them to +-{_RMS_CLIP}, which"
        " is not done here."
    )
    scale = np.sqrt(var + _RMS_EPSILON)
    return {
        name: torch.as_tensor(np.tile(values, (len(suite), 1)), dtype=torch.float32)
        for name, values in (("obs_mean", mean), ("obs_scale", scale))
    }


def published_key(name: str, layout: Layout) -> str:
    """The key of a parameter in a layout.

    Args:
        name: of the parameter in :class:`pwm.models.world_model.WorldModel`.
        layout: the file's.
    """
    network, _, rest = name.partition(".")
    if network == "encoder" and layout == "pwm":
        return f"_encoder.{rest}"
    if network.startswith("q_") and layout == "tdmpc2-old":
        layer, _, parameter = rest.partition(".")
        number = int(layer) * len(_NAMES) + _NAMES.index(parameter)
        return f"{'_target_Qs' if network == 'q_target' else '_Qs'}.params.{number}"
    return f"{_NETWORKS[network]}.{rest}"


def _layout(entries: Iterable[str]) -> Layout:
    if any(re.match(r"_encoder\.\d", key) for key in entries):
        return "pwm"
    is_new = any(re.match(r"_Qs\.params\.\d+\.\D|_detach_Qs_params\.", key) for key in entries)
    return "tdmpc2-new" if is_new else "tdmpc2-old"


def _weights(path: Path, entries: Mapping[str, Any], key: str) -> Tensor:
    """The parameter of a key, float32."""
    value = entries[key]
    if not isinstance(value, Tensor) or value.is_meta:
        raise PwmError(f"{path} has no numbers for {key}; give a whole checkpoint.")
    finite = value.is_floating_point() and (
        not value.numel() or all(bound.isfinite() for bound in torch.aminmax(value.detach()))
    )
    if not finite:
        raise PwmError(f"{path} has {key} with values that are no finite numbers.")
    return value.detach().float()


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which no two lie in the same memory, as a checkpoint here needs them."""
    seen: set[int] = set()
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            state[name] = tensor.clone()
        seen.add(place)
    return state


def _sizes(path: Path, entries: Mapping[str, Any], layout: Layout) -> tuple[ModelSize, int, int]:
    """The architecture, the observation's and the action's size."""

    def shape(name: str) -> tuple[int, int]:
        key = published_key(name, layout)
        _require(path, entries, [key])
        found: tuple[int, ...] = tuple(getattr(entries[key], "shape", ()))
        if len(found) != 2:
            raise PwmError(f"{path} has {key} of shape {found}, no matrix.")
        return found[0], found[1]

    prefix = re.escape(published_key("encoder.", layout))
    layers = [int(m[1]) for key in entries if (m := re.fullmatch(rf"{prefix}(\d+)\.weight", key))]
    _, task_dim = shape("task_emb.weight") if "_task_emb.weight" in entries else (0, 0)
    width, inputs = shape("encoder.0.weight")
    hidden, joint = shape("dynamics.0.weight")
    bins, _ = shape("reward_head.2.weight")
    latent, _ = shape(f"encoder.{max(layers) or 1}.weight")
    if bins < 2:
        raise PwmError(f"{path} predicts rewards by regression; only two-hot rewards are read.")
    if latent % ModelSize.simnorm_dim:
        raise PwmError(f"{path} has latents of size {latent}, no multiple of 8.")
    size = ModelSize(width, len(layers) - 1, hidden, latent, task_dim, num_bins=bins)
    q = entries.get(published_key("q_ensemble.0.weight", layout))
    if isinstance(q, Tensor) and q.dim():
        size = replace(size, num_q=len(q))
    return size, inputs - task_dim, joint - latent - task_dim


def _require(path: Path, entries: Mapping[str, Any], keys: Iterable[str]) -> None:
    if missing := [key for key in keys if key not in entries]:
        raise PwmError(f"{path} lacks {_listed(missing)}; give a whole checkpoint.")


def _listed(keys: list[str]) -> str:
    shown = ", ".join(f"'{key:.100}'" for key in keys[:6])
    return shown if len(keys) <= 6 else f"{shown} and {len(keys) - 6} more keys"


def _check_suite(
    path: Path, suite: Suite, tasks: int | None, obs_dim: int, action_dim: int
) -> None:
    """Refuse a suite of another number of tasks or of other sizes, with the ones that fit."""
    wanted = len(suite) if len(suite) > 1 or tasks is not None else None
    if (tasks, obs_dim, action_dim) == (wanted, suite.obs_dim, suite.action_dim):
        return
    if tasks is None:
        fit = [t.name for t in SUITES["mt80"] if (t.obs_dim, t.action_dim) == (obs_dim, action_dim)]
    else:
        own = (tasks, obs_dim, action_dim)
        fit = [n for n, s in SUITES.items() if (len(s), s.obs_dim, s.action_dim) == own]
    options = ", ".join(f"suite={name}" for name in fit[:5])
    advice = f"; give {options}{' or another' if len(fit) > 5 else ''}" if fit else ""
    raise PwmError(
        f"{path} is a model of {_counted(tasks or 1, obs_dim, action_dim)}, and suite "
        f"'{suite.name}' has {_counted(len(suite), suite.obs_dim, suite.action_dim)}{advice}."
    )


def _counted(tasks: int, obs_dim: int, action_dim: int) -> str:
    sizes = f"observations of {obs_dim} and actions of {action_dim} entries"
    return f"{counted(tasks, 'task')} with {sizes}"


def _check_buffers(path: Path, entries: Mapping[str, Any], suite: Suite) -> None:
    stored = {k: v for k, v in entries.items() if isinstance(v, Tensor) and not v.is_meta}
    masks, expected = stored.get("_action_masks"), action_masks(suite.tasks, suite.action_dim)
    if masks is not None and not torch.equal(masks.to(expected), expected):
        raise PwmError(
            f"{path} was trained on other tasks than suite '{suite.name}' has: its action masks "
            "differ."
        )
    for name, value in _LOG_STD.items():
        if name in stored and stored[name].tolist() != value:
            raise PwmError(f"{path} has {name} other than {value}, which is not read.")


def published_layout(model: WorldModel) -> Layout:
    """The layout that can hold a model: ``pwm`` without Q ensemble and prior."""
    return "tdmpc2-new" if model.has_q else "pwm"


def to_published(model: WorldModel, placeholders: bool = False) -> dict[str, Any]:
    """The model's state dict in the layout that its authors' code loads.

    Args:
        model: without observation normalization, which no published layout has.
        placeholders: add the tensors without content that TD-MPC2 expects under recent
            tensordict releases.

    Raises:
        PwmError: if the layout cannot express the model.
    """
    _check_expressible(model)
    layout = published_layout(model)
    parameters = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    state: dict[str, Any] = {}
    if layout == "tdmpc2-new":
        if model.size.task_dim:
            state["_action_masks"] = model.action_mask.detach().cpu()
        state |= {name: torch.tensor(value) for name, value in _LOG_STD.items()}
    state |= {published_key(name, layout): tensor for name, tensor in parameters.items()}
    if layout == "tdmpc2-new":
        state |= _q_extras(parameters, model.size.num_q, placeholders)
    return state


def _check_expressible(model: WorldModel) -> None:
    if model.normalize_obs:
        raise PwmError(
            "the model normalizes observations task by task, which a checkpoint of TD-MPC2 cannot "
            "say; pretrain with normalize_obs=false to export."
        )
    if model.episodic and not model.has_q:
        raise PwmError(
            "the model has a termination head but no Q ensemble and prior, and no layout has that; "
            "pretrain with q_and_prior=true to export."
        )
    size, usual = model.size, ModelSize()
    for name in ("simnorm_dim", "num_bins", "vmin", "vmax"):
        if getattr(size, name) != getattr(usual, name):
            raise PwmError(
                f"the model has {name}={getattr(size, name)}, and a checkpoint of TD-MPC2 means "
                f"{getattr(usual, name)}; pretrain with that to export."
            )


def _q_extras(parameters: Mapping[str, Tensor], num_q: int, placeholders: bool) -> dict[str, Any]:
    """The entries that TD-MPC2 saves beside the two ensembles, and asks for when it loads."""
    extras: dict[str, Any] = {}
    for prefix in ("_Qs.params", "_detach_Qs_params", "_target_Qs_params"):
        extras[f"{prefix}.__batch_size"] = torch.Size([num_q])
        extras[f"{prefix}.__device"] = None
    for name, tensor in parameters.items():
        network, _, rest = name.partition(".")
        if network == "q_ensemble":
            extras[f"_detach_Qs_params.{rest}"] = tensor
            if placeholders:
                extras[f"_Qs.module.{rest}"] = tensor[0].to("meta")
                extras[f"_detach_Qs.module.{rest}"] = tensor.to("meta")
                extras[f"_target_Qs.module.{rest}"] = tensor.to("meta")
    return extras
