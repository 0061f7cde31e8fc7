"""Work in other processes: order, errors, and that nothing of it stays behind."""

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest

from ctmar.errors import WorkerLostError
from ctmar.processes import each


def double(number):
    return 2 * number


def fail(number):
    raise ValueError(f"number {number}")


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def wait(number):
    time.sleep(60 * number)


def threads(number):
    import numba

    return numba.get_num_threads(), os.environ["OPENBLAS_NUM_THREADS"], signal.getsignal(signal.SIGINT)


def test_in_this_process():
    assert list(each(double, [3, 1, 2], workers=1)) == [6, 2, 4]
    assert list(each(lambda n: n, [7], workers=4)) == [7]  # not worth a process
    assert list(each(double, [], workers=4)) == []


@pytest.mark.slow
def test_in_others_in_order():
    assert list(each(double, [3, 1, 2], workers=2)) == [6, 2, 4]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_workers_share_the_cores_and_leave_ctrl_c_to_their_parent(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "5")
    expected = max(1, (os.cpu_count() or 1) // 2)
    for found, blas, interrupt in each(threads, [1, 2], workers=2):
        assert found == min(expected, os.cpu_count())
        assert blas == str(expected)
        assert interrupt == signal.SIG_IGN
    assert os.environ["OPENBLAS_NUM_THREADS"] == "5"


@pytest.mark.slow
def test_errors_come_through():
    with pytest.raises(ValueError, match="number 1"):
        list(each(fail, [1, 2], workers=2))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_is_killed():
    with pytest.raises(WorkerLostError, match="fewer --workers"):
        list(each(die, [1, 2], workers=2))


@pytest.mark.slow
def test_whoever_stops_taking_results_need_not_wait():
    """Each item takes a minute but the first."""
    begin = time.monotonic()
    results = each(wait, [0, 1, 1], workers=2)
    next(results)
    results.close()
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begin < 30


def hold(seconds, pipe):
    os.write(pipe, b"x")
    time.sleep(seconds)


@pytest.mark.slow
def test_workers_end_with_the_process_that_began_them():
    """A child begins workers and is killed: only when they, too, have ended does their end of the pipe close."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        code = "from tests.ctmar.test_processes import busy; busy()"
        os.dup2(there, 1)
        import sys

        os.execv(sys.executable, [sys.executable, "-c", code])
    os.close(there)
    assert os.read(here, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    begin = time.monotonic()
    while os.read(here, 16):
        pass
    assert time.monotonic() - begin < 20
    os.close(here)


def busy():
    """Two workers that say so on standard output and then take their time."""
    list(each(partial(hold, pipe=1), [60, 60], workers=2))
