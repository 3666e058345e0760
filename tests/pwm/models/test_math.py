from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pwm.models.math import (
    bin_centers,
    discounted_sum,
    expected_bin,
    percentile_range,
    running_moments,
    soft_cross_entropy,
    survival,
    symexp,
    symlog,
    td_lambda,
    two_hot,
    weighted_sum,
)

BINS = bin_centers(101, -10.0, 10.0)
DOUBLE_BINS = torch.linspace(-10, 10, 101, dtype=torch.float64)

in_range = st.floats(-22000, 22000, allow_nan=False)  # symexp(10) is about 22,025
anything = st.floats(allow_nan=False, allow_infinity=False, width=32)
horizons = st.integers(1, 12)
shares = st.floats(0, 1)


@given(in_range)
def test_symexp_inverts_symlog(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert symexp(symlog(value)).item() == pytest.approx(x, rel=1e-12, abs=1e-12)


@given(in_range)
def test_symlog_is_the_papers_formula_and_odd(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert symlog(value).item() == pytest.approx(math.copysign(math.log(1 + abs(x)), x))
    assert symlog(-value) == -symlog(value)


@given(anything)
def test_two_hot_is_a_distribution_over_at_most_two_neighbours(x):
    encoded = two_hot(torch.tensor(x), BINS)
    assert encoded.shape == (101,)
    assert encoded.min() >= 0
    assert encoded.sum().item() == pytest.approx(1, abs=1e-6)
    used = encoded.nonzero().flatten().tolist()
    assert used in ([used[0]], [used[0], used[0] + 1])


@given(in_range)
def test_two_hot_round_trip_gives_the_target_back(x):
    value = torch.tensor(x, dtype=torch.float64)
    mean = two_hot(value, DOUBLE_BINS) @ DOUBLE_BINS
    assert symexp(mean).item() == pytest.approx(x, rel=1e-9, abs=1e-9)


@given(anything)
def test_two_hot_in_float32_is_as_near_as_float32_allows(x):
    mean = two_hot(torch.tensor(x), BINS) @ BINS
    wanted = min(max(math.copysign(math.log1p(abs(x)), x), -10), 10)
    assert mean.item() == pytest.approx(wanted, abs=2e-5)


@pytest.mark.parametrize(("x", "index"), [(-1e9, 0), (1e9, 100), (0.0, 50)])
def test_two_hot_ends_and_middle(x, index):
    assert two_hot(torch.tensor(x), BINS)[index].item() == pytest.approx(1, abs=1e-5)


def test_two_hot_splits_between_neighbours_by_distance():
    centers = torch.tensor([-1.0, 0.0, 1.0])
    encoded = two_hot(symexp(torch.tensor([0.25, -0.5])), centers)
    torch.testing.assert_close(encoded, torch.tensor([[0, 0.75, 0.25], [0.5, 0.5, 0]]))


def test_expected_bin_reads_logits_as_a_distribution():
    probabilities = two_hot(torch.tensor([3.0, -7.5, 250.0]), BINS)
    values = expected_bin(probabilities.clamp(min=1e-30).log(), BINS)
    torch.testing.assert_close(symexp(values), torch.tensor([3.0, -7.5, 250.0]), rtol=1e-4, atol=0)


def test_soft_cross_entropy_against_a_direct_sum():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 101), torch.tensor([0.0, 1.3, -40.0, 1e6])
    wanted = []
    for row, x in zip(logits.double(), target, strict=True):
        log_probability = row - torch.log(torch.exp(row).sum())
        wanted.append(-(two_hot(x, BINS).double() * log_probability).sum())
    losses = soft_cross_entropy(logits, target, BINS)
    torch.testing.assert_close(losses, torch.stack(wanted).float())


def test_soft_cross_entropy_is_least_at_the_target():
    target = torch.tensor(5.0)
    right = two_hot(target, BINS).clamp(min=1e-9).log()
    wrong = two_hot(torch.tensor(9.0), BINS).clamp(min=1e-9).log()
    least = soft_cross_entropy(right, target, BINS)
    assert least < soft_cross_entropy(torch.zeros(101), target, BINS)
    assert least < soft_cross_entropy(wrong, target, BINS)


def n_step_lambda_return(
    reward: Tensor, next_value: Tensor, discount: float, lam: float, t: int
) -> Tensor:
    """(1 - lam) sum_n lam^(n-1) G_t^(n), with all weight that is left on the longest return."""
    horizon = len(reward)

    def n_step(n: int) -> Tensor:
        rewards = sum(discount**i * reward[t + i] for i in range(n))
        return rewards + discount**n * next_value[t + n - 1]

    longest = horizon - t
    total = lam ** (longest - 1) * n_step(longest)
    for n in range(1, longest):
        total = total + (1 - lam) * lam ** (n - 1) * n_step(n)
    return total


@given(horizons, shares, shares, st.integers(0, 2**31))
def test_td_lambda_is_the_weighted_sum_of_n_step_returns(horizon, discount, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    reward, value = torch.randn(2, horizon, 3, 2, generator=generator, dtype=torch.float64)
    targets = td_lambda(reward, value, discount, lam)
    assert targets.shape == (horizon, 3, 2)
    for t in range(horizon):
        wanted = n_step_lambda_return(reward, value, discount, lam, t)
        torch.testing.assert_close(targets[t], wanted, rtol=1e-9, atol=1e-9)


def test_td_lambda_limits():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(td_lambda(reward, value, 0.9, 0.0), reward + 0.9 * value)
    whole = td_lambda(reward, value, 0.9, 1.0)
    torch.testing.assert_close(whole[0], discounted_sum(reward, 0.9) + 0.9**5 * value[-1])


def test_td_lambda_and_returns_stop_where_an_episode_ends():
    """Step 2 ends it for sure, step 1 by one half: what comes after counts as much."""
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    goes_on = torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0], dtype=torch.float64).unsqueeze(1)
    alive = survival(goes_on.expand(5, 4))
    torch.testing.assert_close(alive[:, 0].tolist(), [1.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    target = td_lambda(reward, value, 0.9, 1.0, goes_on)
    torch.testing.assert_close(target[2], reward[2])
    torch.testing.assert_close(target[1], reward[1] + 0.9 * 0.5 * reward[2])
    torch.testing.assert_close(target[0], discounted_sum(alive[:-1] * reward, 0.9))
    one_step = td_lambda(reward, value, 0.9, 0.0, goes_on)
    torch.testing.assert_close(one_step, reward + 0.9 * goes_on * value)


def test_td_lambda_does_not_write_into_its_inputs():
    reward, value = torch.ones(3, 2), torch.ones(3, 2)
    td_lambda(reward, value, 0.9, 0.5)
    assert reward.eq(1).all()
    assert value.eq(1).all()


@given(horizons, shares, st.integers(0, 2**31))
def test_discounted_sum_against_a_loop(horizon, discount, seed):
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(horizon, 2, 3, generator=generator, dtype=torch.float64)
    wanted = torch.zeros(2, 3, dtype=torch.float64)
    for t in range(horizon):
        wanted += discount**t * reward[t]
    torch.testing.assert_close(discounted_sum(reward, discount), wanted)


def fresh_moments(tasks: int) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.zeros(tasks, dtype=torch.float64) for _ in range(3))


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**31))
def test_running_moments_without_forgetting_are_those_of_all_samples(batches, size, seed):
    generator = torch.Generator().manual_seed(seed)
    data = 100 + 5 * torch.randn(batches, 2, size, generator=generator, dtype=torch.float64)
    state = fresh_moments(2)
    for batch in data:
        state = running_moments(*state, batch, decay=1.0)
    together = data.transpose(0, 1).reshape(2, -1)
    torch.testing.assert_close(state[0], together.mean(1))
    torch.testing.assert_close(state[1], together.var(1, correction=0))


@given(st.floats(0.1, 0.99))
def test_forgetting_moments_are_those_of_exponentially_weighted_samples(decay):
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(7, 1, 5, generator=generator, dtype=torch.float64)
    state = fresh_moments(1)
    for batch in data:
        state = running_moments(*state, batch, decay)
    weights = torch.tensor([decay ** (6 - i) for i in range(7)], dtype=torch.float64)
    weights = weights.repeat_interleave(5) / (5 * weights.sum())
    samples = data.flatten()
    mean = (weights * samples).sum()
    torch.testing.assert_close(state[0].squeeze(), mean)
    torch.testing.assert_close(state[1].squeeze(), (weights * (samples - mean) ** 2).sum())


def test_first_batch_of_forgetting_moments_counts_in_full():
    batch = torch.tensor([[1.0, 3.0], [10.0, 20.0]], dtype=torch.float64)
    mean, var, _ = running_moments(*fresh_moments(2), batch, decay=0.9)
    assert mean.tolist() == [2.0, 15.0]
    assert var.tolist() == [1.0, 25.0]


def test_percentile_range():
    values = torch.arange(101.0).reshape(1, 101)
    assert percentile_range(values).item() == pytest.approx(90)
    assert percentile_range(values, 0.25, 0.75).item() == pytest.approx(50)
    assert percentile_range(values / 1000).item() == 1.0  # never below 1


def in_bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_values_are_decoded_to_float32_under_autocast():
    value = torch.linspace(-300, 300, 601)
    logits = two_hot(value, BINS).clamp(min=1e-30).log()
    with in_bfloat16():
        decoded = symexp(expected_bin(logits, BINS))
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reward", [0.3, 1.0, 3.0])
def test_a_td_target_under_autocast_comes_to_rest_where_it_should(reward):
    """Logits are what a bfloat16 layer gives, and a perfect fit of the target of before."""
    value = torch.zeros(1)
    for _ in range(400):
        logits = two_hot(value, BINS).clamp(min=1e-30).log().bfloat16()
        with in_bfloat16():
            value = reward + 0.97 * symexp(expected_bin(logits, BINS))
    assert value.item() == pytest.approx(reward / 0.03, rel=0.01)


def test_weighted_sums_are_float32_under_autocast():
    reward, weights = torch.full((16, 5), 1.001), torch.linspace(1, 2, 16)
    with in_bfloat16():
        found = weighted_sum(reward, weights), discounted_sum(reward, 0.97)
    wanted = 1.001 * 24, 1.001 * (1 - 0.97**16) / 0.03
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, torch.full((5,), other))
