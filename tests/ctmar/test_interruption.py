"""A simulation that is killed again and again ends in the very files of one that ran through."""

import pytest

from benchmarks.interruptions import run


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    times, differing, count = run(tmp_path, kills=3, cases=12, workers=2, seed=1)
    assert len(times) == 3
    assert count == 12 * 4 + 3
    assert differing == []
