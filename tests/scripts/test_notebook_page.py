from __future__ import annotations

import json
from pathlib import Path

from notebook_page import notebook_page

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "docs" / "notebooks" / "first_policy.ipynb").read_text())


def test_the_notebook_is_saved_with_the_outputs_of_one_run_in_order():
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        assert cell["outputs"]
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    assert "/tmp" not in json.dumps(NOTEBOOK) and "/home" not in json.dumps(NOTEBOOK)


def test_the_page_has_the_text_the_code_and_what_it_gave():
    page = notebook_page(NOTEBOOK)
    assert page.startswith("# A first policy\n")
    assert "````python\n!pwm collect suite=cartpole-balance" in page
    assert "return of random actions" in page.split("print(f")[1]
    assert page.count('<img alt="output" src="data:image/png;base64,iVBOR') == 1


def test_colours_are_left_out_and_an_expression_s_value_is_shown():
    cell = {"cell_type": "code", "source": ["1 + 1"]}
    outputs = [
        {"output_type": "stream", "text": ["\x1b[31mred\x1b[0m\n"]},
        {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
    ]
    page = notebook_page({"cells": [{**cell, "outputs": outputs}]})
    assert page == "````python\n1 + 1\n````\n\n````text\nred\n````\n\n````text\n2\n````\n"
