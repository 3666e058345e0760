from __future__ import annotations

from pathlib import Path

import pytest
from scaling_table import PLACES, exchange_ms, table, window_bytes

SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_docs_show_the_table():
    text = SCALING.read_text()
    for line in table():
        assert line in text, f"remake docs/scaling.md: scripts/scaling_table.py says {line}"


def test_a_ring_sends_nearly_twice_the_gradients():
    alone, node, many, one_port = (exchange_ms(1e9, place) for place in PLACES)
    assert alone == 0
    assert node == pytest.approx(1e3 * 2 * 7 / 8 / 450)
    assert many == pytest.approx(1e3 * 2 * 63 / 64 / 400)
    assert one_port == pytest.approx(8 * many)


def test_a_window_is_seventeen_unpadded_rows():
    assert 17 * 4 * 3 < window_bytes() < 17 * 4 * 48
