from __future__ import annotations

import json
from pathlib import Path

from notebook_page import notebook_page

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def test_every_notebook_gives_a_page_with_all_of_its_code():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text())
        page = notebook_page(notebook)
        assert page.startswith("# ")
        assert page.count("````python\n") == sum(
            c["cell_type"] == "code" for c in notebook["cells"]
        )


def test_a_page_shows_what_code_printed_gave_and_drew_without_colours():
    outputs = [
        {"output_type": "stream", "text": ["\x1b[31mred\x1b[0m\n", "rose\n"]},
        {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
        {"output_type": "display_data", "data": {"image/png": "iVB\nOR", "text/plain": "Figure"}},
        {"output_type": "execute_result", "data": {"image/gif": "R0lG", "text/plain": "Image"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": outputs},
    ]
    assert notebook_page({"cells": cells}) == (
        "# Title\ntext\n\n````python\n1 + 1\n````\n\n````text\nred\nrose\n````\n\n"
        '````text\n2\n````\n\n<img alt="output" src="data:image/png;base64,iVBOR">\n\n'
        '<img alt="output" src="data:image/gif;base64,R0lG">\n'
    )
