"""A simulation that is killed again and again ends in the very files of one that ran through."""

import pytest

from benchmarks.interruptions import run


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    times, differing, count = run(tmp_path, kills=2, cases=8, workers=2, seed=1)
    assert len(times) == 2
    assert count == 8 * 4 + 3
    assert differing == []
