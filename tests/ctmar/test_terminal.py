"""The command line as people meet it: help, spelling mistakes, completion, quiet and verbose, width."""

import json
import os
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len

from tests.ctmar.small import MARKER, write_small_series

COLOURS = ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
"""What turns colours on and off."""

COMMANDS = ("simulate", "train", "correct", "evaluate", "demo", "info")


def run(*arguments, **variables):
    """`ctmar` as a process of its own, in a terminal of 80 columns."""
    kept = {name: value for name, value in os.environ.items() if name not in COLOURS}
    return subprocess.run(
        [sys.executable, "-m", "ctmar", *map(str, arguments)],
        env={**kept, "COLUMNS": "80", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_fits(command):
    result = run(command, "--help")
    assert result.returncode == 0
    assert re.search(rf"Example: +ctmar {command}", result.stdout)
    assert max(map(cell_len, result.stdout.splitlines())) <= 80


def test_help_does_not_load_what_is_slow():
    """What takes seconds to load is loaded when a command needs it: the help is there at once."""
    code = (
        "import sys, ctmar.cli\n"
        "try: ctmar.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'numba', 'numpy', 'scipy', 'skimage', 'pydicom', 'h5py'} & set(sys.modules)\n"
        "sys.exit(' '.join(slow) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("corect",), "Did you mean 'correct'"),
        (("correct", "x", "--out", "y", "--metod", "li"), "--method"),
        (("correct", "x", "--out", "y", "--method", "nmar3"), "did you mean nmar2?"),
        (("correct", "x", "--out", "y", "--preset", "hips"), "did you mean hip?"),
        (("evaluate", "x", "--out", "y", "--model", "defualt"), "did you mean default?"),
        (("simulate", "phantom", "--out", "y", "--implants", "hipp"), "did you mean hip?"),
        (("simulate", "phantom", "--out", "y", "--materials", "gold"), "did you mean goldalloy?"),
    ],
)
def test_spelling_mistakes_get_a_suggestion(tmp_path, arguments, words):
    result = run(*(tmp_path / one if one in ("x", "y") else one for one in arguments))
    assert result.returncode in (2, 7)
    assert words in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ctmar cor", {"correct"}),
        ("ctmar correct x --method nm", {"nmar1", "nmar2"}),
        ("ctmar correct x --model def", {"default", "default-first"}),
        ("ctmar evaluate x --model def", {"default", "default-first"}),
        ("ctmar correct x --preset h", {"hip", "head"}),
    ],
)
def test_the_shell_completes(typed, expected):
    words = str(len(typed.split()) - 1)
    result = run(_CTMAR_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=words)
    assert set(result.stdout.split()) == expected


def test_quiet_and_verbose(tmp_path):
    write_small_series(tmp_path / "series")
    options = ("--method", "li", "--device", "cpu")
    quiet = run("correct", tmp_path / "series", "--out", tmp_path / "q", *options, "-q", "--json")
    assert quiet.returncode == 0
    assert all(line.startswith("warning: ") for line in quiet.stderr.splitlines())
    assert json.loads(quiet.stdout)[0]["method"] == "li"
    verbose = run("correct", tmp_path / "series", "--out", tmp_path / "v", *options, "-v")
    assert "2 of 4 slices corrected" in verbose.stderr
    assert re.search(r"slice 2: corrected, metal \d+ mm2, mean change [\d.]+ HU", verbose.stderr)
    assert "projections on cpu" in verbose.stderr
    assert MARKER not in verbose.stderr


def test_no_colours_in_pipes_or_where_they_are_not_wanted():
    assert "\x1b[" not in run("correct", "--help").stdout
    assert "\x1b[" in run("correct", "--help", FORCE_COLOR="1").stdout
    assert not re.search(r"\x1b\[[\d;]*3\d", run("correct", "--help", FORCE_COLOR="1", NO_COLOR="1").stdout)
