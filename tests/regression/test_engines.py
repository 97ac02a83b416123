import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

from lsdr.regression import engine_ray
from lsdr.regression.gram import Gram
from lsdr.regression.one_pass import one_pass
from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source

# One process of the test run starts Ray, once, for all of them.
pytestmark = pytest.mark.xdist_group("engines")

HERE = Path(__file__).parent
ROWS = 200_000
ENGINES = ["threads", "processes", "ray"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    generator = np.random.default_rng(0)
    columns = {f"x{j}": generator.normal(size=ROWS) + 100.0 * j for j in range(5)}
    columns["town"] = generator.choice(["a", "b", "c"], ROWS)
    columns["y"] = np.arange(float(ROWS))
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=40000)
    return path


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A home folder of one's own; workers find the deadly states; Ray is stopped again, if it was started."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        patch.setenv("HOME", str(home))
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield home
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def run(data, empty, engine, workers=2):
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra [ray] is not installed")
    source = open_source(data)
    plan = make_plan(source, "y")
    return one_pass(source, plan, partial(empty, plan.blocks), engine=engine, workers=workers)


def bits(gram):
    total = gram.total()
    return gram.columns, total.mean.tobytes(), total.cross.tobytes(), gram._cross.tobytes(), gram.rows.tobytes()


@pytest.mark.parametrize("kind", ["parquet", "numbers", "table", "arrays", "iterator", "csv"])
def test_every_engine_and_number_of_workers_gives_the_same_bits(table, tmp_path, kind):
    rows = pq.read_table(table).slice(0, 70_000)
    x = np.c_[rows["x0"], rows["x1"]]
    if kind == "csv":
        arrow_csv.write_csv(rows, tmp_path / "t.csv")
    pq.write_table(rows.drop_columns("town"), tmp_path / "numbers.parquet", row_group_size=30_000)
    make = {
        "parquet": lambda: table,
        "numbers": lambda: tmp_path / "numbers.parquet",  # which polars decodes
        "table": lambda: rows,
        "arrays": lambda: (x, rows["y"].to_numpy()),
        "iterator": lambda: iter(rows.to_batches(max_chunksize=9999)),
        "csv": lambda: tmp_path / "t.csv",
    }[kind]
    runs = [("threads", 1), ("threads", 2), ("threads", 5), ("processes", 2), ("ray", 2)]
    assert len({bits(run(make(), Gram, engine, workers=workers)) for engine, workers in runs}) == 1


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_killed_worker_costs_its_part_alone(table, tmp_path, engine):
    from deadly_state import Deadly

    gram = run(table, partial(Deadly, folder=str(tmp_path), deaths=1), engine)
    assert bits(gram) == bits(run(table, Gram, "threads"))
    assert len(list(tmp_path.glob("died-*"))) == 1
    worked = {path.name: len(path.read_text().split()) for path in tmp_path.glob("worked-*")}
    assert worked.pop("worked-0") == 2
    assert set(worked.values()) == {1}
    assert len(worked) == 4


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_that_keep_dying_end_the_pass_with_what_to_do(table, tmp_path, engine):
    from deadly_state import Deadly

    with pytest.raises(RuntimeError, match=r"died \d times over one part of the data.* too little memory"):
        run(table, partial(Deadly, folder=str(tmp_path), deaths=99), engine)
    assert len(list(tmp_path.glob("died-*"))) in (3, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_error_in_the_order_of_the_parts_is_told_as_it_is(tmp_path, engine):
    # The later part fails much sooner.
    files = [tmp_path / f"{k}.csv" for k in range(2)]
    files[0].write_text("a,y\n" + "1,2\n" * 200_000 + "x,2\n")
    files[1].write_text("a,y\n1,2\nz,2\n")
    with pytest.raises(ValueError, match=r"^column 'a' .*row 200001 of .*0.csv: 'x'") as caught:
        run(files, Gram, engine)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_errors_of_a_state_come_back(engine, capfd):
    from deadly_state import Raising

    data = (np.ones((2000, 1)), np.arange(2000.0))
    with pytest.raises(KeyError, match="part 0"):
        run(data, Raising, engine)
    with pytest.raises(Exception, match="first"):
        run(data, partial(Raising, odd=True), engine)
    # What a worker prints is no answer.
    assert run((data[0], data[1] + 5000), Raising, engine).rows.sum() == 2000


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match=r"other processes cannot be given this .*engine='threads'"):
        run((np.ones((10, 1)), np.ones(10)), lambda blocks: Gram(blocks), "processes")


def test_an_abandoned_pass_leaves_no_workers(tmp_path):
    seen = tmp_path / "seen"
    seen.mkdir()
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from functools import partial
import numpy as np
from deadly_state import Slow
from lsdr.regression.one_pass import one_pass
from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source
if __name__ == "__main__":
    source = open_source((np.ones((100000, 1)), np.ones(100000)))
    one_pass(source, make_plan(source, "y"), partial(Slow, 20, {str(seen)!r}), engine="processes", workers=2)
""")
    process = subprocess.Popen([sys.executable, str(script)])
    wait_for(lambda: len(list(seen.iterdir())) == 2)
    workers = [int(path.name) for path in seen.iterdir()]
    assert all(alive(worker) for worker in workers)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    wait_for(lambda: not any(alive(worker) for worker in workers))


def test_ray_leaves_nothing_in_the_home_folder_and_asks_nobody(home):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    assert run((np.ones((10, 1)), np.ones(10)), Gram, "ray").rows.sum() == 10
    assert not list(home.iterdir())
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


def alive(process):
    # A process that ended and that nobody waited for counts as ended.
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_ray_is_told_that_its_tokens_are_meant(tmp_path):
    """It warns of them where it is not."""
    (tmp_path / "ray.py").write_text("import os; mode = os.environ['RAY_AUTH_MODE']; is_initialized = lambda: True")
    code = "from lsdr.regression.engine_ray import _started; print(_started(None).mode)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        environment.pop(name, None)
    found = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert found.stdout == "token\n"


def test_ctrl_c_waits_until_ray_has_started():
    done = []

    def start(interrupted):
        with engine_ray._interrupts_later():
            if interrupted:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(interrupted)

    with pytest.raises(KeyboardInterrupt):
        start(interrupted=True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    start(interrupted=False)
    assert done == [True, False]
