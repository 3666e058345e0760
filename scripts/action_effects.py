"""Does a policy's gradient point uphill in the simulator? Effects of actions, imagined and real.

``python scripts/action_effects.py runs/a/policies/walker-walk --checkpoint runs/a/world_model``
plays some episodes, and at states of them changes one action by ``--delta`` along a random
direction, either way. The true effect is the difference of the discounted returns that follow in
copies of the simulator, where the policy goes on acting. The predicted one is that of H imagined
steps and the critic at their end, for every H asked for. Gradients are these differences in the
limit, so where predicted and true effects disagree in sign, the gradient of the imagined return
leads away.

A table tells, by H: the rank correlation over states, the share of equal signs, root mean squares,
and what share of the most that could be won a step along the predicted sign wins.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.core.errors import PwmError
from pwm.envs import TaskEnv, make_env
from pwm.evaluation.predictions import world_model_of
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.imagination import Imagination
from pwm.models.actor_critic import TaskCritic, load_critic
from pwm.models.math import survival, symlog
from pwm.models.policy import Policy, load_policy
from pwm.models.world_model import WorldModel
from pwm.reporting.templating import markdown_table

SHARE = 0.4  # of an episode's steps, the first, that states are of; returns are of those after them


class Place(NamedTuple):
    """A state that the policy came to."""

    env: TaskEnv
    obs: np.ndarray  # (obs_dim,)
    action: np.ndarray  # (action_dim,), the policy's
    direction: np.ndarray  # (action_dim,), of root mean square 1


def places(policy: Policy, episodes: int, states: int, seed: int) -> list[Place]:
    """States of as many episodes, drawn without putting any back."""
    draw, found = np.random.default_rng(seed), []
    env = make_env(policy.task)
    horizon = int(SHARE * policy.task.episode_length)
    for episode in range(episodes):
        obs = env.reset(seed=seed + episode)[0]
        chosen = set(draw.choice(horizon, min(states, horizon), replace=False).tolist())
        for step in range(horizon):
            action = policy.act(obs)
            if step in chosen:
                direction = draw.normal(size=action.shape)
                direction /= np.sqrt(np.square(direction).mean())
                found.append(Place(copy.deepcopy(env), obs, action, direction))
            obs, _, ended, *_ = env.step(action)
            if ended:
                break
    env.close()
    return found


def changed(place: Place, delta: float) -> np.ndarray:
    """The policy's action there, changed along the direction, as the environment takes it."""
    return np.clip(place.action + delta * place.direction, -1, 1).astype(np.float32)


def true_return(
    found: Sequence[Place], policy: Policy, critic: TaskCritic, delta: float
) -> np.ndarray:
    """(n,) discounted returns after changed actions, in the critic's units of reward."""
    envs = [copy.deepcopy(place.env) for place in found]
    actions = np.stack([changed(place, delta) for place in found])
    returns = np.zeros(len(found))
    steps = policy.task.episode_length - int(SHARE * policy.task.episode_length)
    alive = np.arange(len(found))
    for step in range(steps):
        outcomes = [envs[i].step(action) for i, action in zip(alive, actions, strict=True)]
        rewards = torch.tensor([outcome[1] for outcome in outcomes], dtype=torch.float64)
        if critic.reward_units == "symlog":
            rewards = symlog(rewards)
        returns[alive] += critic.discount**step * rewards.numpy()
        goes_on = np.array([not outcome[2] for outcome in outcomes])
        if not goes_on.any():
            break
        alive = alive[goes_on]
        actions = policy.act(np.stack([outcome[0] for outcome in outcomes])[goes_on])
    return returns


@torch.no_grad()
def predicted_return(
    found: Sequence[Place],
    policy: Policy,
    model: WorldModel,
    critic: TaskCritic,
    delta: float,
    horizon: int,
) -> np.ndarray:
    """(n,) returns of H imagined steps after changed actions, with the value of what follows."""
    task = policy.task
    task_id = torch.tensor([model.suite.id(task.name)])
    obs = torch.zeros(1, len(found), model.suite.obs_dim)
    first = torch.zeros(1, len(found), model.suite.action_dim)
    obs[..., : task.obs_dim] = torch.as_tensor(np.stack([place.obs for place in found]))
    given = np.stack([changed(place, delta) for place in found])
    first[..., : task.action_dim] = torch.as_tensor(given)
    given_first = [first]

    def act(latent: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return given_first.pop() if given_first else policy.actor(latent)

    config = ActorCriticConfig(reward_units=critic.reward_units)
    imagined = Imagination(model, task_id, config).roll_out(
        act, model.encode(obs, task_id.unsqueeze(1)), torch.zeros(horizon, *first.shape)
    )
    values = critic.values(imagined.latents[-1]).amin(1)
    outcomes = torch.cat([imagined.rewards, values.unsqueeze(0)]).double()
    if imagined.continuation is not None:
        outcomes = outcomes * survival(imagined.continuation)
    weights = critic.discount ** torch.arange(horizon + 1, dtype=torch.float64)
    return (weights @ outcomes[:, 0]).numpy()


def agreement(predicted: np.ndarray, true: np.ndarray) -> list[float]:
    """Rank correlation, equal signs, both root mean squares, and the share of gains that is won.

    What nothing can be said of, since no action changes anything, is nan.
    """
    signs, varies = np.sign(predicted), np.ptp(predicted) > 0 and np.ptp(true) > 0
    most = np.abs(true).sum()
    return [
        float(spearmanr(predicted, true)[0]) if varies else np.nan,
        float(np.mean(signs == np.sign(true))),
        float(np.sqrt(np.square(predicted).mean())),
        float(np.sqrt(np.square(true).mean())),
        float((true * signs).sum() / most) if most else np.nan,
    ]


def effects(given: argparse.Namespace, path: Path) -> list[list[str]]:
    """The table's rows of a policy."""
    policy, critic = load_policy(path), load_critic(path)
    model = world_model_of(policy, path, given.checkpoint)
    found = places(policy, given.episodes, given.states, given.seed)
    either_way = (given.delta, -given.delta)
    true = np.subtract(*(true_return(found, policy, critic, delta) for delta in either_way))
    rows = []
    for horizon in given.horizons:
        imagined = np.subtract(
            *(predicted_return(found, policy, model, critic, d, horizon) for d in either_way)
        )
        figures = [f"{figure:.2f}" for figure in agreement(imagined, true)]
        rows.append([policy.task.name, str(horizon), *figures])
    return rows


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policies", nargs="+", type=Path, help="directories of single policies")
    parser.add_argument("--checkpoint", help="the world model, if it is not where it was")
    parser.add_argument("--horizons", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="H")
    parser.add_argument("--delta", type=float, default=0.2, help="root mean square, per entry")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--states", type=int, default=15, help="of an episode")
    parser.add_argument("--seed", type=int, default=2000)
    given = parser.parse_args(words)
    if min(given.horizons) < 1 or min(given.episodes, given.states) < 1 or given.delta <= 0:
        parser.error("horizons, episodes and states must be at least 1, and delta above 0")
    header = ["task", "H", "rank", "signs", "imagined rms", "true rms", "won"]
    try:
        rows = [row for path in given.policies for row in effects(given, path)]
    except PwmError as error:
        sys.exit(str(error))
    print(markdown_table([header, *rows]))


if __name__ == "__main__":
    main()
