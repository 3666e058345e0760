from __future__ import annotations

import signal

import pytest
import torch

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.signals import Interrupted, StopSignals
from pwm.pretraining.config import PretrainConfig
from pwm.runtime.distributed import Ranks


def test_alone_everything_is_as_it_was():
    alone = Ranks()
    values = torch.tensor([1.0, 2.0])
    assert alone.main
    assert alone.mean(values) is values
    assert alone.all_gather(values) is values
    assert alone.all_gather_object("x") == ["x"]
    assert alone.any_stop_signal(None) is None
    assert alone.any_stop_signal(signal.SIGTERM) == signal.SIGTERM
    with pytest.raises(PwmError, match="what was wrong"), alone.raise_together():
        raise PwmError("what was wrong")


def test_a_patient_loop_holds_back_the_second_signal_too():
    """SLURM and torchrun may both hand on the same one."""
    with StopSignals(patient=True) as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="saved"):
            Ranks().raise_if_requested(signals, "saved")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["parallel=ddp"], "parallel=ddp needs the processes that torchrun starts"),
        (["parallel=fsdp"], "torchrun --nproc-per-node 8 -m pwm.cli pretrain"),
        (["parallel=fspd"], "did you mean 'fsdp'"),
        (["accumulate=0"], "accumulate=0 must be at least 1"),
        (["accumulate=3"], "batch_size=8 must be a multiple of 3"),
    ],
)
def test_mistakes_end_in_one_sentence(words, sentence, toy, tmp_path, capsys):
    assert main(toy.pretrain(tmp_path / "run", *words)) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_sharded_model_is_not_compiled():
    with pytest.raises(PwmError, match="compile=always does not go with parallel=fsdp"):
        PretrainConfig(data="data", out="out", parallel="fsdp", compile="always").validate()
