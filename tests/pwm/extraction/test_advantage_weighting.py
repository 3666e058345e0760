from __future__ import annotations

import torch

from pwm.extraction.advantage_weighting import advantages, cloned_rows


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


def made_up(rows: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States of two tasks, the part of their outcomes that states do not explain, and outcomes."""
    draw = torch.Generator().manual_seed(0)
    latent = torch.rand(2, rows, 6, generator=draw)
    latent[..., 5] = 1.0  # an entry that never varies
    surprise = torch.randn(2, rows, generator=draw)
    scale = torch.tensor([[0.1], [100.0]])
    outcome = scale * (50 + latent @ torch.arange(6.0) + 0.5 * surprise)
    return latent, surprise, outcome


def test_an_advantage_is_what_states_do_not_explain():
    latent, surprise, outcome = made_up()
    found = advantages(latent, outcome)
    for k in range(2):
        assert torch.corrcoef(torch.stack([found[k], surprise[k]]))[0, 1] > 0.98
    torch.testing.assert_close(found.square().mean(1), torch.ones(2))
    design = torch.cat([latent[0, :, :5], torch.ones(400, 1)], 1).double()
    fit = design @ torch.linalg.lstsq(design, outcome[0].double().unsqueeze(1)).solution
    residual = outcome[0].double() - fit.squeeze(1)
    torch.testing.assert_close(found[0].double(), residual / residual.std(correction=0),
                               rtol=0.02, atol=0.02)  # fmt: skip


def test_rows_are_drawn_by_the_exponential_of_their_advantage():
    latent, _, outcome = made_up()
    found = advantages(latent, outcome).clamp(-3, 3)
    drawn = torch.cat(
        [
            cloned_rows(latent, outcome, 0.5, [torch.Generator().manual_seed(i)] * 2)
            for i in range(50)
        ],
        1,
    )
    for k in range(2):
        better = found[k] > 0
        share = better[drawn[k]].float().mean()
        weights = (found[k] / 0.5).exp()
        wanted = weights[better].sum() / weights.sum()
        assert abs(share - wanted) < 0.01
        assert wanted > 0.9


def test_a_task_s_rows_do_not_depend_on_the_tasks_beside_it():
    latent, _, outcome = made_up()
    both = cloned_rows(latent, outcome, 1.0, generators(2))
    alone = cloned_rows(latent[1:], outcome[1:], 1.0, generators(2)[1:])
    assert (both[1] == alone[0]).float().mean() > 0.99
    assert both.shape == (2, 400)


def test_equal_outcomes_are_cloned_alike():
    latent, _, _ = made_up()
    drawn = cloned_rows(latent, torch.full((2, 400), 3.0), 0.1, generators(2))
    assert len(drawn[0].unique()) > 200
