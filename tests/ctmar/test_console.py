import json
from pathlib import Path

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
