"""Work by Dask workers: order, errors, deaths on either side, and that nothing of it stays behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ctmar import cluster
from ctmar.cluster import ALONE, Cluster
from ctmar.errors import UsageError, WorkerLostError

needs_dask = pytest.mark.skipif(not cluster.has_dask(), reason="dask is not installed (pip install ctmar[dask])")


def double(number):
    return 2 * number


def fail(number):
    raise ValueError(f"number {number}")


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(number, folder):
    """Kill the process that does it the first time."""
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait(number):
    time.sleep(60 * number)
    return os.getpid()


def full(number):
    raise OSError(28, "No space left on device", "somewhere")


def about(number):
    import numba

    return numba.get_num_threads(), os.environ["OPENBLAS_NUM_THREADS"], signal.getsignal(signal.SIGINT)


@pytest.fixture(scope="module")
def two():
    pytest.importorskip("distributed", reason="dask is not installed (pip install ctmar[dask])")
    with Cluster(2) as workers:
        yield workers
    assert multiprocessing.active_children() == []


def test_in_this_process():
    assert list(ALONE.each(double, [3, 1, 2])) == [6, 2, 4]
    assert list(Cluster(1).each(lambda n: n, [7])) == [7]
    assert ALONE.size == 1


def test_what_cannot_be_done_in_this_process():
    with pytest.raises(ValueError, match="number 1"):
        list(ALONE.each(fail, [1, 2]))
    assert list(ALONE.each(fail, [1, 2], lost=lambda item, error: f"{item}: {error}")) == ["1: number 1", "2: number 2"]
    with pytest.raises(OSError, match="No space"):
        list(ALONE.each(full, [1, 2], lost=lambda *_: None))


def test_without_dask(monkeypatch):
    monkeypatch.setattr(cluster, "has_dask", lambda: False)
    with pytest.raises(UsageError, match="pip install 'ctmar\\[dask\\]'"):
        Cluster(2)
    with pytest.raises(UsageError, match="--scheduler"):
        Cluster(scheduler="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_in_others_in_order(two):
    assert list(two.each(double, range(50))) == [2 * number for number in range(50)]
    assert list(two.each(double, [])) == []
    assert two.size == 2


@pytest.mark.slow
def test_one_item_is_not_worth_a_process(two):
    assert list(two.each(lambda _: os.getpid(), [7])) == [os.getpid()]


@pytest.mark.slow
def test_workers_share_the_cores_and_leave_ctrl_c_to_who_began_them(two):
    expected = max(1, (os.cpu_count() or 1) // 2)
    for threads, blas, interrupt in two.each(about, [1, 2, 3]):
        assert threads == expected
        assert blas == str(expected)
        assert interrupt == signal.SIG_IGN


@pytest.mark.slow
def test_errors_come_through_or_become_results(two):
    with pytest.raises(ValueError, match="number 1"):
        list(two.each(fail, [1, 2]))
    assert list(two.each(fail, [1, 2], lost=lambda item, error: f"{item}: {error}")) == ["1: number 1", "2: number 2"]
    with pytest.raises(OSError, match="No space"):
        list(two.each(full, [1, 2], lost=lambda *_: None))


@pytest.mark.slow
def test_what_a_worker_died_at_is_done_by_another(two, tmp_path):
    assert list(two.each(partial(die_once, folder=tmp_path), [1, 2, 3])) == [1, 2, 3]


@pytest.mark.slow
def test_what_kills_every_worker_is_given_up(two):
    with pytest.raises(WorkerLostError, match="fewer --workers"):
        list(two.each(die, [1, 2]))
    found = list(two.each(die, [1, 2], lost=lambda item, error: type(error)))
    assert found == [WorkerLostError, WorkerLostError]


def interrupt(results, seen):
    seen.append(next(results))
    raise KeyboardInterrupt


@needs_dask
@pytest.mark.slow
def test_whoever_stops_taking_results_need_not_wait():
    """Each item takes a minute but the first."""
    begin = time.monotonic()
    seen = []
    with pytest.raises(KeyboardInterrupt), Cluster(2) as workers:
        interrupt(workers.each(wait, [0, 1, 1]), seen)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
    assert time.monotonic() - begin < 30


@needs_dask
def test_a_scheduler_that_is_not_there():
    with (
        Cluster(scheduler="tcp://127.0.0.1:9", patience_s=1) as workers,
        pytest.raises(WorkerLostError, match="answers"),
    ):
        list(workers.each(double, [1, 2]))


@pytest.mark.slow
def test_workers_that_are_lost_for_good_end_all(two, monkeypatch):
    """Nothing is tried again, and no item is taken for the one at fault."""

    def gone(_):
        raise WorkerLostError("the scheduler has no workers any more")

    monkeypatch.setattr(two, "_result", gone)
    with pytest.raises(WorkerLostError, match="any more"):
        list(two.each(double, [1, 2], lost=lambda *_: None))


@needs_dask
@pytest.mark.slow
def test_workers_of_another_version(two, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "0.0.0")
    with pytest.raises(UsageError, match=r"this is 0\.0\.0"):
        list(two.each(double, [1, 2], lost=lambda *_: None))


def variable(name):
    return os.environ.get(name)


@needs_dask
@pytest.mark.slow
def test_workers_load_the_same_plugins(tmp_path):
    (tmp_path / "mine.py").write_text("import os\nos.environ['CTMAR_TEST_PLUGIN'] = 'loaded'\n")
    with Cluster(2, plugins=[str(tmp_path / "mine.py")]) as workers:
        assert list(workers.each(variable, ["CTMAR_TEST_PLUGIN"] * 2)) == ["loaded"] * 2
    with (
        Cluster(2, plugins=[str(tmp_path / "none.py")]) as workers,
        pytest.raises(UsageError, match=r"none\.py cannot be loaded"),
    ):
        list(workers.each(double, [1, 2], lost=lambda *_: None))


def hold(seconds, pipe):
    os.write(pipe, b"x")
    time.sleep(seconds)


@needs_dask
@pytest.mark.slow
def test_workers_end_with_the_process_that_began_them(tmp_path):
    """It is killed: only when its workers, too, have ended does their end of the pipe close."""
    script = tmp_path / "busy.py"
    script.write_text("from tests.ctmar.test_cluster import busy\nif __name__ == '__main__':\n    busy()\n")
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.read(1) == b"x"
        process.kill()
        begin = time.monotonic()
        while process.stdout.read(16):
            pass
        assert time.monotonic() - begin < 20


def busy():
    """Two workers that say so on standard output and then take their time."""
    with Cluster(2) as workers:
        list(workers.each(partial(hold, pipe=1), [60, 60]))
