"""`ctmar correct` on wrong and damaged input, on full disks, and stopped in the middle: nothing is left behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctmar import cli, slice_correction
from tests.ctmar.small import GEOMETRY, MARKER, METAL, small_volumes, tree, write_small_series

COMMAND = (sys.executable, "-c", "from ctmar.cli import main; main()", "correct")
FLAGS = ("--method", "li", "--device", "cpu")
Run = Callable[..., tuple[int, str]]

SLICES = 24
"""Of the series that is stopped in the middle, all with metal: some seconds of work."""


def start(*arguments: object, limits: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, arguments), *FLAGS]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=limits)  # noqa: PLW1509


def judged(code: int, out: str, err: str) -> tuple[int, str]:
    """Exit code and last line on stderr; the rest holds no traceback and no patient, stdout nothing."""
    assert "Traceback" not in err
    assert "internal error" not in err
    assert MARKER not in err + out
    assert out == ""
    return code, err.splitlines()[-1]


def run(*arguments: object, limits: Callable[[], None] | None = None) -> tuple[int, str]:
    """In a process of its own."""
    with start(*arguments, limits=limits) as process:
        out, err = process.communicate(timeout=300)
    return judged(process.returncode, out, err)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """In this process, which is quicker."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(slice_correction, "reprojection_geometry", lambda grid: GEOMETRY)
    monkeypatch.delenv("CTMAR_DEBUG", raising=False)

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ctmar", "correct", *map(str, arguments), *FLAGS])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        text = capsys.readouterr()
        return judged(int(stop.value.code or 0), text.out, text.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def source(tmp_path: Path, volumes: tuple[np.ndarray, np.ndarray]) -> Path:
    write_small_series(tmp_path / "source", volumes[0])
    return tmp_path / "source"


def test_folders_and_files_without_a_series(here: Run, tmp_path: Path, source: Path) -> None:
    whole = (source / "0001.dcm").read_bytes()
    inputs = {
        "nothing": {},
        "folders only": {"a/b/.keep": b""},
        "texts and pictures": {
            "a.txt": b"text" * 100,
            "b.png": b"\x89PNG\r\n\x1a\n" + bytes(200),
            "c.pdf": b"%PDF-1.7",
        },
        "headers only": {"a.dcm": whole[:400], "b.dcm": whole[:140], "c.dcm": b"", "d.dcm": whole[:132]},
        "archives in a folder": {"a.zip": b"PK\x03\x04" + bytes(300)},
    }
    for name, files in inputs.items():
        folder = tmp_path / name
        folder.mkdir()
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        before = tree(tmp_path)
        code, sentence = here(folder, "--out", tmp_path / "out")
        assert code == 3, sentence
        assert name in sentence
        assert "no usable CT series" in sentence
        assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("a.dcm", b"text", 3), ("a.zip", b"PK\x03\x04" + bytes(300), 6), ("a.nii.gz", b"\x1f\x8b" + bytes(40), 6),
     ("a.nii", bytes(400), 6), ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(300), 6), ("DICOMDIR", bytes(300), 3)],
)  # fmt: skip
def test_single_files_of_the_wrong_type(here: Run, tmp_path: Path, name: str, content: bytes, code: int) -> None:
    (tmp_path / name).write_bytes(content)
    before = tree(tmp_path)
    out = tmp_path / ("out" + "".join(Path(name).suffixes) if name.endswith((".gz", ".nii", ".h5")) else "out")
    found, sentence = here(tmp_path / name, "--out", out)
    assert found == code, sentence
    assert name in sentence
    assert tree(tmp_path) == before


def test_unreadable_slices_amid_good_ones_are_listed(here: Run, tmp_path: Path, source: Path) -> None:
    """Cut in the pixels, cut in the header, and not there any more to be read."""
    for name, kept in (("0002.dcm", -3000), ("0004.dcm", 300)):
        content = (source / name).read_bytes()
        (source / name).write_bytes(content[:kept])
    before = tree(source)
    code, sentence = here(source, "--out", tmp_path / "out")
    assert code == 8
    assert sentence.startswith("ctmar: 1 ")
    assert tree(source) == before
    written = sorted((tmp_path / "out").glob("*.dcm"))
    originals = [pydicom.dcmread(path).SourceImageSequence[0].ReferencedSOPInstanceUID for path in written]
    assert [uid[-2:] for uid in originals] == [".1", ".3"]


def test_targets_that_cannot_be_written(here: Run, tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "at" / "all")
    targets = [tmp_path / "file" / "out", Path("/proc/ctmar-test/out"), tmp_path / ("n" * 300)]
    before = tree(tmp_path)
    for target in [*targets, tmp_path / "link"]:
        code, sentence = here(source, "--out", target)
        assert code in (1, 5), sentence
        assert sentence.startswith("ctmar: ")
        assert tree(tmp_path) == before


def bounded_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))


def test_a_full_disk(tmp_path: Path, source: Path) -> None:
    """Every file may have 5000 bytes, a slice of the series has 9000."""
    before = tree(tmp_path)
    code, sentence = run(source, "--out", tmp_path / "new" / "out", limits=bounded_files)
    assert code == 1
    assert "no half-written file was left behind. Make room" in sentence
    assert tree(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_and_one_that_is_read_only(source: Path, small_disk: Path) -> None:
    (small_disk / "out").mkdir()
    (small_disk / "out" / "report.json").write_text("x")
    before = tree(small_disk), tree(source)
    code, sentence = run(source, "--out", small_disk / "out", "--overwrite")
    assert (code, tree(small_disk), tree(source)) == (1, *before), sentence
    assert "No space left on device; no half-written file was left behind. Make room" in sentence
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, sentence = run(source, "--out", small_disk / "new")
    assert (code, tree(small_disk)) == (1, before[0])
    assert "Read-only file system" in sentence


@pytest.fixture(scope="module")
def long_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "source"
    write_small_series(folder, small_volumes(SLICES, metal=tuple(range(SLICES)))[0])
    return folder


def at_start(folder: Path) -> bool:
    return True


def at_the_first_folder(folder: Path) -> bool:
    return any(folder.glob(".*"))


def at_the_first_slice(folder: Path) -> bool:
    return any(folder.glob(".*/**/*.dcm"))


def at_many_slices(folder: Path) -> bool:
    return len(list(folder.glob(".*/**/*.dcm"))) > SLICES // 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", [at_start, at_the_first_folder, at_the_first_slice, at_many_slices])
def test_a_signal_leaves_nothing_behind(
    tmp_path: Path, long_series: Path, number: signal.Signals, moment: Callable[[Path], bool]
) -> None:
    """Nothing but what was there, and no output that looks complete."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("x")
    before = tree(tmp_path), tree(long_series)
    flags = ("--overwrite", "--difference", "--report")
    with start(long_series, "--out", tmp_path / "out", *flags) as process:
        end = time.monotonic() + 120
        while not moment(tmp_path) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        assert process.poll() is None, "it was quicker than the signal"
        time.sleep(0.3 if moment is at_start else 0)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert (tree(tmp_path), tree(long_series)) == before
    if moment is not at_start:  # before the program has begun, Python itself answers
        assert process.returncode == 128 + number
        assert err.splitlines()[-1].startswith("ctmar: interrupted; no half-written file was left behind.")
        assert "Traceback" not in err
    assert process.returncode != 0


def test_metal_is_in_the_slices_that_the_tests_cut(volumes: tuple[np.ndarray, np.ndarray]) -> None:
    assert METAL == (1, 2)
    assert (volumes[0][1] >= 2500).any()
