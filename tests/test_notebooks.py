"""Every notebook runs as it stands, as Jupyter runs it, and is the same as Python and as .ipynb."""

import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

SOURCES = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


def test_there_are_notebooks():
    assert [path.stem[:2] for path in SOURCES] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_both_forms_say_the_same(source):
    """`make notebooks` writes the .ipynb; they are kept without output."""
    code = [[cell.cell_type, cell.source] for cell in jupytext.read(source).cells]
    pair = jupytext.read(source.with_suffix(".ipynb"))
    assert [[cell.cell_type, cell.source] for cell in pair.cells] == code, "run make notebooks"
    assert not any(cell.get("outputs") for cell in pair.cells)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_runs(source, tmp_path):
    notebook = tmp_path / f"{source.stem}.ipynb"
    shutil.copyfile(source.with_suffix(".ipynb"), notebook)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=300", "-q", "-c", "/dev/null", notebook.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(tmp_path.glob("notebook-*.png"))
