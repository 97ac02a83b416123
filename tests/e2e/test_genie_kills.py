"""Processes that write an index and are killed, or write it at once."""

import random
import subprocess
import sys
from pathlib import Path

from lsdr.genie.index import Index

KILLS = 25
DOCUMENTS = 40


def text(number, version):
    return "\n\n".join(f"Version {version} of paragraph {k} of {number}, which has words. " * 5 for k in range(6))


def write(folder, version):
    for number in range(DOCUMENTS):
        (folder / f"{number:02}.txt").write_text(text(number, version))


def writer(index, folder):
    command = [sys.executable, Path(__file__).with_name("genie_writer.py"), index, folder]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def sound(index):
    assert index.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    index.connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")


def test_nothing_is_lost_when_writers_are_killed(tmp_path):
    folder, path, rng = tmp_path / "papers", tmp_path / "index.sqlite", random.Random(1)
    folder.mkdir()
    possible: dict[str, set[str]] = {}
    interrupted = 0
    for version in range(KILLS):
        write(folder, version)
        process = writer(path, folder)
        said = [process.stdout.readline().strip() for _ in range(rng.randrange(1, DOCUMENTS - 8))]
        process.kill()
        said += process.stdout.read().splitlines()
        process.stdout.close()
        interrupted += process.wait() == -9
        with Index.open(path) as index:
            sound(index)
            held = {each.name: index.text(each.name) for each in index.documents()}
        for number in range(DOCUMENTS):
            name = f"papers/{number:02}.txt"
            new = text(number, version)
            # What was said to be in is in, as it was then; the others are wholly there as before or anew.
            allowed = {new} if name in said else possible.get(name, {None}) | {new}
            assert held.get(name) in allowed, (version, name)
            possible[name] = {held.get(name)}
    assert interrupted >= KILLS - 5
    with Index.open(path) as index:
        added = index.add([folder])
        assert len(added.changed + added.unchanged + added.new) == DOCUMENTS
        assert index.count(f"version {KILLS - 1}") == sum(each.passages for each in index.documents())
        assert index.count(f"version {KILLS - 2}") == 0
        sound(index)


def test_two_writers_at_once(tmp_path):
    folder, path = tmp_path / "papers", tmp_path / "index.sqlite"
    folder.mkdir()
    write(folder, 0)
    writers = [writer(path, folder) for _ in range(2)]
    for process in writers:
        names = process.communicate()[0].split()
        assert process.returncode == 0
        assert len(names) == DOCUMENTS
    with Index.open(path) as index, Index.open(tmp_path / "alone.sqlite") as alone:
        sound(index)
        alone.add([folder])
        assert len(index.documents()) == DOCUMENTS
        assert index.corpus_hash() == alone.corpus_hash()
        assert index.search("paragraph 3 of 17") == alone.search("paragraph 3 of 17")
