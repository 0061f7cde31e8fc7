"""Other people's programs, and what they say of a file."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from ctmar import slice_correction
from ctmar.cli import app
from tests.ctmar.small import GEOMETRY, small_volumes, write_small_series

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the shared CT data beside the project")

NO_OUTPUT = {"all_", "dry_run", "json_", "overwrite"}
"""Flags of `ctmar correct` that add nothing to what is written."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def output(*command: object) -> str:
    """What a program prints, on stdout and stderr."""
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, errors="replace")
    return run.stdout + run.stderr


def errors(path: Path) -> Counter[str]:
    """Errors that dciodvfy finds."""
    return Counter(line for line in output("dciodvfy", "-new", path).splitlines() if line.startswith("Error"))


def every_output_flag() -> list[str]:
    """The flags of `ctmar correct` that have it write more: new ones are tried as soon as there are any."""
    command = typer.main.get_command(app).commands["correct"]  # type: ignore[attr-defined]
    flags = [p for p in command.params if getattr(p, "is_flag", False) and p.name not in NO_OUTPUT]
    return [flag.opts[0] for flag in flags]


def correct(source: Path, out: Path, flags: Sequence[str] = ()) -> list[Path]:
    """`ctmar correct` in this process; every DICOM file that it writes."""
    arguments = ["correct", str(source), "--out", str(out), "--method", "li", "--device", "cpu", *flags]
    typer.main.get_command(app).main(arguments, prog_name="ctmar", standalone_mode=False)
    return sorted(path for path in out.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM")


def small_correction(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of a small source, and all that `ctmar correct` writes of it with all of its flags."""
    pytest.importorskip("highdicom")
    sources = write_small_series(folder / "source", small_volumes()[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_correction, "reprojection_geometry", lambda grid: GEOMETRY)
        return sources, correct(folder / "source", folder / "out", every_output_flag())
