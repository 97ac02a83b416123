"""Python files: docstrings where they stand, and never run."""

import warnings

import pytest

from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers import docstrings as module
from lsdr.genie.readers.read import read

SOURCE = '''import os

"""Not a docstring."""


class Norm(object):
    """A norm.

    Second line.
    """

    value = "not documented"

    def of(
        self,
        x,
    ):
        r"""The norm \\of x."""
        return secret(x)


async def wait():
    "Waits."


def bare():
    return 1
'''


def test_docstrings_and_their_signatures_stay_on_their_lines():
    document = read("a.py", SOURCE.encode())
    lines, source = document.text.split("\n"), SOURCE.split("\n")
    assert {number for number, line in enumerate(lines) if line} == {5, 6, 8, 9, 13, 14, 15, 16, 17, 21, 22}
    assert all(line in ("", own) for line, own in zip(lines, source, strict=False))
    assert document.where(document.text.index("Second")) == (None, 9)
    assert (document.kind, document.problems) == ("python", ())


def test_the_docstring_of_the_module_is_read():
    assert read("a.py", b"#!/bin/python\n'''What it is.'''\nx = 1\n").text == "\n'''What it is.'''\n"


def test_a_file_without_docstrings_is_empty_and_says_so():
    document = read("a.py", b"x = 1\n")
    assert (document.text, document.problems) == ("", ("holds no docstrings",))


def test_what_is_not_python_3_is_read_whole():
    document = read("a.py", b"print 'words'\n")
    assert document.text == "print 'words'\n"
    assert document.problems == ("is not Python 3 (line 1): all of it was read",)
    deep = read("a.py", b"x = " + b"-" * 200_000 + b"1\n")
    assert "is not Python 3" in deep.problems[0]


def test_the_encoding_a_file_names_is_used():
    assert "größe" in read("a.py", "# coding: latin-1\n'''größe'''\n".encode("latin-1")).text
    assert "größe" in read("a.py", "\ufeff'''größe'''\r\n".encode()).text
    assert "größe" in read("a.py", "# coding: nonsense\n'''größe'''\n".encode()).text


def test_odd_escapes_do_not_warn_and_nothing_runs(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = read("a.py", f'"""An odd \\d escape."""\nopen({str(tmp_path / "ran")!r}, "w")\n'.encode())
    assert "\\d" in document.text
    assert not (tmp_path / "ran").exists()


def test_what_would_take_too_large_a_tree_is_refused(monkeypatch):
    monkeypatch.setattr(module, "PYTHON_BYTES", 100)
    with pytest.raises(UnreadableError, match=r"too large: .* of at most 100"):
        read("a.py", b"x = 1\n" * 20)
