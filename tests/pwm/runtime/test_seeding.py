from __future__ import annotations

import torch

from pwm.runtime.seeding import restore, stream


def test_a_generator_goes_on_where_its_state_was_taken():
    one, other = stream(0, "walker-walk"), stream(5, "other")
    torch.rand(3, generator=one)
    restore(other, one.get_state(), 0, "walker-walk/7")
    assert torch.equal(torch.rand(4, generator=other), torch.rand(4, generator=one))


def test_a_state_of_another_kind_of_device_starts_a_stream_of_its_own():
    """A GPU's state has 16 bytes."""
    generator, on_gpu = stream(0, "walker-walk"), torch.zeros(16, dtype=torch.uint8)
    begun = torch.rand(4, generator=stream(0, "walker-walk"))
    restore(generator, on_gpu, 0, "walker-walk/7")
    drawn = torch.rand(4, generator=generator)
    assert torch.equal(drawn, torch.rand(4, generator=stream(0, "walker-walk/7")))
    assert not torch.equal(drawn, begun)
