"""One input through `ctmar correct` in this process, and what has to hold whatever the input is."""

from __future__ import annotations

import contextlib
import io
import math
import os
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import typer

from ctmar import slice_correction
from ctmar.cli import app
from ctmar.errors import CtmarError
from data_sim.geometry import FanArc, ImageGrid
from tests.ctmar.small import MARKER
from tests.fuzz.mutators import ESCAPE
from tests.fuzz.seeds import Seed

SECONDS = 20.0
"""An input that takes longer hangs."""

ADDRESS_SPACE = 4 * 2**30
PEAK_MIB = 1024
"""No input may need more than this, on top of what the program takes anyway."""

_COMMAND = typer.main.get_command(app)


@dataclass(frozen=True)
class Outcome:
    """What became of an input: "success", the name of a `CtmarError`, or what is wrong ("FAIL ..."), and its cost."""

    kind: str
    seconds: float
    peak_mib: float
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Whether something happened that must not."""
        return self.kind.startswith("FAIL")


class _HangError(BaseException):
    """Took too long; no handler of ordinary errors is to take it for one."""


def run(seed: Seed, folder: Path) -> Outcome:
    """Lay the files of an input into a new folder, correct them, check everything, and remove the folder."""
    place = folder / "up" / "and" / "down"
    source, out, here, temporary = (place / name for name in ("input", "out", "here", "tmp"))
    for made in (source, here, temporary):
        made.mkdir(parents=True)
    for name, content in seed.files.items():
        file = place / name if name.startswith("beside/") else source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    flags = [str(place / flag[1:]) if flag.startswith("@") else flag for flag in seed.flags]
    if not all(name.endswith((".h5", ".nii", ".nii.gz")) for name in seed.files):
        flags.append("--all")
    kind_of_file = next((end for end in (".h5", ".nii.gz", ".nii") if seed.source.endswith(end)), "")
    target = out.with_name(out.name + kind_of_file)
    arguments = [
        "correct",
        str(source / seed.source),
        "--out",
        str(target),
        "--method",
        "li",
        "--device",
        "cpu",
        *flags,
    ]
    before = _contents(folder)
    text = io.StringIO()
    base = _peak_mib(reset=True)
    begin = time.perf_counter()
    with _in_folder(here, temporary), _deadline(), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        kind, detail = _call(arguments)
    seconds = time.perf_counter() - begin
    peak = _peak_mib() - base
    if not kind.startswith("FAIL"):
        broken = _broken(
            folder, before, target, detail + text.getvalue(), finished=kind in ("success", "SomeSlicesFailedError")
        )
        if peak > PEAK_MIB:
            broken = f"{peak:.0f} MiB of memory"
        kind, detail = (f"FAIL {broken}", "") if broken else (kind, detail or text.getvalue())
    shutil.rmtree(folder)
    return Outcome(kind, seconds, peak, detail)


@contextlib.contextmanager
def small_scans() -> Iterator[None]:
    """Few views and bins: what is sought is in the reading, not in the projecting."""
    full = slice_correction.reprojection_geometry

    def small(grid: ImageGrid) -> FanArc:
        half = full(grid).source_isocentre_mm  # raises where no gantry is wide enough
        corner = min(0.95, math.hypot(*grid.shape) / 2 * grid.pixel_mm / half)
        return FanArc(views=60, bins=72, bin_pitch_rad=2.1 * math.asin(corner) / 72)

    slice_correction.reprojection_geometry = small
    try:
        yield
    finally:
        slice_correction.reprojection_geometry = full


def bound_memory() -> None:
    """Let this process have no more than `ADDRESS_SPACE` from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, hard))


def _call(arguments: list[str]) -> tuple[str, str]:
    try:
        _COMMAND.main(arguments, prog_name="ctmar", standalone_mode=False)
    except CtmarError as error:
        return type(error).__name__, str(error)
    except _HangError:
        return "FAIL hang", traceback.format_exc()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/ctmar/" in f.filename or "/data_sim/" in f.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"FAIL {type(error).__name__} at {where}", traceback.format_exc()
    return "success", ""


def _broken(folder: Path, before: dict[str, bytes | None], target: Path, text: str, *, finished: bool) -> str:
    """What does not hold, or ""."""
    if MARKER in text:
        return "a message holds patient data"
    if Path("/tmp", ESCAPE).exists():
        return "wrote outside of the output folder"
    after = _contents(folder)
    output = str(target.relative_to(folder))
    made = {k: v for k, v in after.items() if k == output or k.startswith(output + os.sep)}
    rest = {k: v for k, v in after.items() if k not in made}
    if rest != before:
        changed = sorted(k for k in rest.keys() | before.keys() if rest.get(k, 0) != before.get(k, 0))
        return f"changed or left behind {Path(changed[0]).parts[3:4]}"
    if finished != bool(made):
        return "output after an error" if made else "no output"
    for name, content in made.items():
        if content is not None and not name.endswith((".dcm", ".h5")) and MARKER.encode() in content:
            return "a report holds patient data"
        if name.endswith(".dcm"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what was odd in the source is odd in the output
                    broken = _unreadable(folder / name)
            except Exception as error:
                broken = f"an output that pydicom does not read ({type(error).__name__})"
            if broken:
                return broken
    return ""


def _unreadable(path: Path) -> str:
    ds = pydicom.dcmread(path)
    if ds.file_meta.TransferSyntaxUID != "1.2.840.10008.1.2.1":
        return "an output in another transfer syntax"
    if str(ds.get("SOPClassUID")) != str(ds.file_meta.MediaStorageSOPClassUID):
        return "an output with two SOP classes"
    if "Rows" in ds and ds.get("Modality") == "CT":
        pixels = ds.pixel_array
        bits = ds.BitsStored
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if ds.PixelRepresentation else (0, (1 << bits) - 1)
        if pixels.min() < low or pixels.max() > high:
            return "an output with pixels beyond Bits Stored"
    return ""


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def _in_folder(here: Path, temporary: Path) -> Iterator[None]:
    before, old = Path.cwd(), os.environ.get("TMPDIR")
    os.chdir(here)
    os.environ["TMPDIR"] = str(temporary)
    try:
        yield
    finally:
        os.chdir(before)
        if old is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = old


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak_mib(*, reset: bool = False) -> float:
    """Highest resident memory so far, or since it was last reset; 0 where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
