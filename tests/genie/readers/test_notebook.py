"""Notebooks: cells and what they printed."""

import json

import pytest

from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.read import read


def notebook(book):
    return read("a.ipynb", json.dumps(book).encode())


def test_cells_and_their_printed_text_are_read_in_order():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {
            "cell_type": "code",
            "source": "print(1)\n",
            "outputs": [
                {"output_type": "stream", "text": ["\x1b[31mred\x1b[0m\n", "1\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBOR", "text/plain": ["<Figure>"]}},
                {"output_type": "execute_result", "data": {"text/html": "<b>no</b>"}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
        {"cell_type": "raw", "source": "last"},
    ]
    document = notebook({"nbformat": 4, "cells": cells})
    assert document.text == "# Title\nWords.\n\nprint(1)\n\nred\n1\n\n<Figure>\n\nlast\n"
    assert document.kind == "notebook"
    assert document.where(document.text.index("last")) == (None, 11)


def test_the_third_format_is_read():
    cells = [{"cell_type": "code", "input": ["x = 1"], "outputs": [{"output_type": "pyout", "text": ["one"]}]}]
    assert notebook({"nbformat": 3, "worksheets": [{"cells": cells}]}).text == "x = 1\n\none\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"{", "broken"),
        (b"[" * 100_000, "broken"),
        (b"[1, 2]", "no notebook"),
        (b'{"a": 1}', "no notebook"),
        (b'{"cells": []}', "no text"),
        (b'{"cells": [1, {"source": 3}, {"source": [4], "outputs": [5, {"data": [6]}]}]}', "no text"),
        (b'{"worksheets": 3}', "no text"),
    ],
)
def test_what_is_no_notebook_is_refused_in_a_sentence(data, said):
    with pytest.raises(UnreadableError, match=said):
        read("a.ipynb", data)
