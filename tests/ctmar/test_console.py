import io
import json
import logging
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from ctmar import console


def test_messages_come_as_they_are_on_stderr(capsys):
    """Names of files may look like markup, and a sentence is one line however long it is."""
    text = "/data/[red]series[/red]/[bold " + "very-" * 40 + "long.dcm: is damaged"
    for say, prefix in ((console.note, ""), (console.warn, "warning: "), (console.fail, "ctmar: ")):
        say(text)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == f"{prefix}{text}\n"


def test_json_is_on_stdout_whole(capsys):
    value = {"out": Path("a") / "b", "text": "[red]" + "x" * 300, "n": 1.5, "none": None}
    console.print_json(value)
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {**value, "out": str(Path("a") / "b")}
    assert shown.err == ""


def test_no_bar_where_stderr_is_no_terminal(capsys):
    with console.progress_bar() as bar:
        bar("working", 0, 2)
        bar("more", 1, 1)
        bar("working", 2, 2)
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_table_of_metrics(capsys):
    figures = {"rmse_hu": 12.34, "rmse_body_hu": 20.06, "ssim": float("nan"), "n": 3}
    console.print_metrics(
        [{"path": "raw", "method": "li", **figures}, {"path": "dicom", "method": "cnn-mar", **figures}]
    )
    lines = capsys.readouterr().out.splitlines()
    (first,) = [line for line in lines if "li" in line.split()]
    assert all(cell in first for cell in ("raw", "12.3", "20.1", "nan", "3"))
    assert any("cnn-mar" in line and "dicom" in line for line in lines)
    assert any("metal pixels excluded" in line for line in lines)


@pytest.fixture
def _loud_again():
    yield
    console.be_quiet(False)
    for name in ("ctmar", "data_sim"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)


@pytest.mark.usefixtures("_loud_again")
def test_quiet_leaves_warnings_and_results(capsys):
    console.be_quiet()
    console.note("as you know")
    console.warn("mind")
    console.fail("no")
    console.print_json([1])
    shown = capsys.readouterr()
    assert shown.err == "warning: mind\nctmar: no\n"
    assert json.loads(shown.out) == [1]


@pytest.mark.usefixtures("_loud_again")
def test_verbose_shows_what_is_logged(capsys):
    logging.getLogger("ctmar.somewhere").info("not yet")
    console.be_verbose(1)
    logging.getLogger("ctmar.somewhere").info("done %d", 3)
    logging.getLogger("data_sim.elsewhere").debug("a detail")
    logging.getLogger("other").info("not ours")
    assert re.fullmatch(r"\d\d:\d\d:\d\d done 3\n", capsys.readouterr().err)
    console.be_verbose(2)
    logging.getLogger("data_sim.elsewhere").debug("a detail")
    assert "a detail" in capsys.readouterr().err


@pytest.mark.parametrize(("colour", "expected"), [("", True), ("1", False)])
def test_no_color_is_respected(monkeypatch, colour, expected):
    """https://no-color.org: set and not empty means no colours."""
    monkeypatch.setenv("NO_COLOR", colour)
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    monkeypatch.setattr(console, "err", terminal)
    console.warn("mind")
    assert ("\x1b[33m" in terminal.file.getvalue()) is expected


def test_the_bar_says_how_fast(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    with console.progress_bar() as bar:
        for done in range(6):
            bar("correcting", done, 6)
            time.sleep(0.25)
    text = terminal.file.getvalue()
    assert re.search(r"correcting .* \d/6 .*\d\.\d/s", text)
    assert (
        max(len(line) for line in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", text).replace("\r", "\n").split("\n")) <= 80
    )
