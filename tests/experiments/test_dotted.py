import sys

import pytest

from lsdr.experiments.dotted import dotted, load


def test_nested_names_and_back():
    assert load("os:path.join") is __import__("os").path.join
    assert load(dotted(pytest.MonkeyPatch)) is pytest.MonkeyPatch


def test_modules_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_methods.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load("my_own_methods:answer") == 42
    del sys.modules["my_own_methods"]


def test_module_that_lacks_what_it_needs_says_so(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load("needs_more:anything")
