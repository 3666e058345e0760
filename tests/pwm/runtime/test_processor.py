from __future__ import annotations

import io
import warnings

import pytest
import torch
from rich.console import Console

from pwm.runtime import processor
from pwm.runtime.acceleration import Acceleration

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_without_its_instructions_is_warned_of_once(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    processor.warn_without_bfloat16.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            Acceleration(precision="bfloat16").prepare(CPU)
            Acceleration().prepare(CPU)
    processor.warn_without_bfloat16.cache_clear()
    said = [str(warning.message) for warning in caught]
    assert len([text for text in said if "leave precision out" in text]) == (0 if native else 1)


@pytest.mark.parametrize(
    ("load", "threads", "device", "told"),
    [
        (6.4, 2, "cpu", True),
        (3.9, 2, "cpu", False),
        (6.4, 1, "cpu", False),
        (6.4, 2, "cuda", False),
    ],
)
def test_a_busy_machine_is_told_of_where_threads_would_wait(
    load, threads, device, told, monkeypatch
):
    monkeypatch.setattr(processor.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(processor.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(processor.torch, "get_num_threads", lambda: threads)
    written = io.StringIO()
    monkeypatch.setattr(processor, "console", Console(file=written))
    processor.say_if_busy.cache_clear()
    for _ in range(2):
        processor.say_if_busy(torch.device(device))
    processor.say_if_busy.cache_clear()
    assert written.getvalue().count("OMP_NUM_THREADS=1") == told
    assert written.getvalue().count("load 6.4 on 2 cores") == told
