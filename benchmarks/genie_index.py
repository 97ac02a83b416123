"""How fast the Genie's index is: built, asked, and brought up to date, beside tantivy and an embedding route.

Run: ``python benchmarks/genie_index.py [--passages 100000]``. The text is synthetic: words drawn from a Zipf
distribution over 50,000, in passages of 120 words, 100 passages a file. Reading the files, hashing and splitting them
are part of the Genie's time; its peers are handed the passages. "One file in a hundred changed" adds the whole folder
again after 1 % of its files were written anew, hashes of all others included. Questions are three words of ranks drawn
evenly on a logarithmic scale from 10 to 50,000, as frequent and rare as those of real questions; each is asked once.

The peers are left out where they are not installed: tantivy (its default tokenizer, one commit); and an embedding
route without its model: FAISS's exact inner product, or numpy's where FAISS is not there, over given vectors of 384
numbers, which leaves out what embedding itself costs (some ten passages a second on one core).
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.genie.index import Index
from lsdr.runs import append_record, environment

RESULTS = Path(__file__).parent / "results" / "genie_index.jsonl"
_WORDS = 120
_PER_FILE = 100
_VOCABULARY = 50_000
_QUESTIONS = 200
_DIMENSIONS = 384


def make_passages(count: int, rng: np.random.Generator) -> list[str]:
    vocabulary = np.array([f"w{k:x}" for k in range(_VOCABULARY)], dtype=object)
    chances = 1 / np.arange(1, _VOCABULARY + 1)
    drawn = np.searchsorted(np.cumsum(chances / chances.sum()), rng.random((count, _WORDS)))
    return [" ".join(row) + "." for row in vocabulary[np.minimum(drawn, _VOCABULARY - 1)]]


def make_questions(rng: np.random.Generator) -> list[str]:
    ranks = np.exp(rng.uniform(np.log(10), np.log(_VOCABULARY), (_QUESTIONS, 3))).astype(int)
    return [" ".join(f"w{rank:x}" for rank in row) for row in ranks]


def write(folder: Path, passages: list[str], files: range) -> None:
    for number in files:
        text = "\n\n".join(passages[number * _PER_FILE : (number + 1) * _PER_FILE])
        (folder / f"{number:05}.txt").write_text(text)


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def asked(ask: Callable[[Any], Any], questions: list[Any]) -> dict[str, float]:
    times = [1e3 * seconds(lambda each=each: ask(each)) for each in questions]
    return {"query_median_ms": statistics.median(times), "query_p95_ms": statistics.quantiles(times, n=20)[-1]}


def genie(root: Path, passages: list[str], questions: list[str], rng: np.random.Generator) -> dict[str, float]:
    folder = root / "papers"
    folder.mkdir()
    files = len(passages) // _PER_FILE
    write(folder, passages, range(files))
    with Index.open(root / "index.sqlite") as index:
        found = {"index_s": seconds(lambda: index.add([folder]))}
        held = sum(each.passages for each in index.documents())
        assert held == len(passages), f"{held} passages, not {len(passages)}"
        found |= asked(lambda question: index.search(question, 10), questions)
        found["unchanged_s"] = seconds(lambda: index.add([folder]))
        changed = max(1, files // 100)
        write(folder, make_passages(changed * _PER_FILE, rng), range(changed))
        found["one_percent_changed_s"] = seconds(lambda: index.add([folder]))
        found["near_first_s"] = seconds(lambda: index.near("wz00t"))
        found["near_again_s"] = seconds(lambda: index.near("wz00u"))
    found["megabytes"] = (root / "index.sqlite").stat().st_size / 1e6
    return found


def tantivy(root: Path, passages: list[str], questions: list[str]) -> dict[str, float]:
    import tantivy as peer

    schema = peer.SchemaBuilder().add_text_field("quote", stored=True).build()
    folder = root / "tantivy"
    folder.mkdir()
    index = peer.Index(schema, path=str(folder))

    def build() -> None:
        writer = index.writer(heap_size=128_000_000, num_threads=1)
        for passage in passages:
            writer.add_document(peer.Document(quote=passage))
        writer.commit()
        writer.wait_merging_threads()

    found = {"index_s": seconds(build)}
    index.reload()
    searcher = index.searcher()
    return found | asked(lambda each: searcher.search(index.parse_query(each, ["quote"]), 10), questions)


def vectors(count: int, rng: np.random.Generator) -> dict[str, float]:
    held = rng.standard_normal((count, _DIMENSIONS), dtype=np.float32)
    questions = list(rng.standard_normal((_QUESTIONS, _DIMENSIONS), dtype=np.float32))
    if importlib.util.find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(_DIMENSIONS)
        return {"index_s": seconds(lambda: index.add(held))} | asked(
            lambda each: index.search(each[None], 10), questions
        )
    return {"index_s": 0.0} | asked(lambda each: np.argpartition(held @ each, -10)[-10:], questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--no-record", action="store_true", help="print only")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    passages, questions = make_passages(arguments.passages, rng), make_questions(rng)
    with tempfile.TemporaryDirectory(prefix="lsdr-genie-") as folder:
        found = {"lsdr": genie(Path(folder), passages, questions, rng)}
        if importlib.util.find_spec("tantivy"):
            found["tantivy"] = tantivy(Path(folder), passages, questions)
    embedding = "faiss" if importlib.util.find_spec("faiss") else "numpy"
    found[f"vectors ({embedding}, embedding left out)"] = vectors(arguments.passages, rng)
    for name, figures in found.items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:24} {value:10.3f}")
    if not arguments.no_record:
        append_record(RESULTS, {"passages": arguments.passages, "figures": found, "environment": environment()})


if __name__ == "__main__":
    main()
