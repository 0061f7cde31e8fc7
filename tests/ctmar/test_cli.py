"""The command line: exit codes, one sentence for every mistake, and nothing left behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pydicom
import pytest

import ctmar
from ctmar import cli, slice_correction
from ctmar.dicom import output
from ctmar.method_names import METHODS
from ctmar.methods import Correction
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice
from tests.ctmar.small import (
    GEOMETRY,
    MARKER,
    METAL,
    tree,
    write_foreign_case,
    write_small_series,
    write_tiny_model,
)
from tests.ctmar.toy_database import write_toy_database

LI = ("--method", "li", "--device", "cpu")


@pytest.fixture
def source(tmp_path, volumes):
    write_small_series(tmp_path / "source", volumes[0])
    return tmp_path / "source"


@pytest.fixture
def case(tmp_path):
    write_foreign_case(tmp_path / "case.h5")
    return tmp_path / "case.h5"


@pytest.fixture
def run(monkeypatch, capsys):
    """The program in this process: exit code, stdout, stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(slice_correction, "reprojection_geometry", lambda grid: GEOMETRY)
    monkeypatch.delenv("CTMAR_DEBUG", raising=False)

    def run_(*arguments):
        monkeypatch.setattr(sys, "argv", ["ctmar", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        text = capsys.readouterr()
        return SimpleNamespace(code=stop.value.code or 0, out=text.out, err=text.err)

    yield run_
    for number, handler in handlers.items():
        signal.signal(number, handler)


def check_refusal(result, code, *words):
    """The exit code, and at the end a sentence, or one with a list, that holds the words; no traceback, no patient."""
    assert result.code == code, result.err
    lines = result.err.splitlines()
    (start,) = (k for k, line in enumerate(lines) if line.startswith("ctmar: "))
    assert all(line.startswith("  ") for line in lines[start + 1 :]), result.err
    for word in words:
        assert word in "\n".join(lines[start:])
    assert "internal error" not in result.err
    assert "Traceback" not in result.err
    assert MARKER not in result.err + result.out
    assert result.out == ""


# ------------------------------------------------------------------ what goes well


@pytest.mark.parametrize("method", METHODS)
def test_a_case_file_of_another_program_is_corrected_by_every_method(run, tmp_path, case, method):
    model = write_tiny_model(tmp_path)
    before = tree(tmp_path)
    out = tmp_path / "out.h5"
    result = run("correct", case, "--out", out, "--method", method, "--model", model, "--device", "cpu", "--whole")
    assert (result.code, result.out) == (0, "")
    after = tree(tmp_path)
    assert after.pop("out.h5")
    assert after == before
    with h5py.File(out) as file:
        corrected = file["image/corrected"][()]
        np.testing.assert_array_equal(corrected, file[f"image/{method}"])
        assert file["mask/metal"][19, 31]  # the pin at x = 8, y = 4 mm
    assert corrected.shape == (48, 48)
    assert abs(np.median(corrected[20:28, 10:18])) < 40


def test_a_series_is_corrected(run, tmp_path, source):
    before = tree(source)
    result = run("correct", source, "--out", tmp_path / "out", *LI)
    assert (result.code, result.out) == (0, "")
    assert "2 of 4 slices corrected" in result.err
    assert "not for diagnostic use" in result.err
    assert MARKER not in result.err
    assert tree(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
    for k in range(4):
        old, new = (pydicom.dcmread(folder / f"{k + 1:04d}.dcm") for folder in (source, tmp_path / "out"))
        assert np.array_equal(old.pixel_array, new.pixel_array) == (k not in METAL)
        assert ("identical" in new.DerivationDescription) == (k not in METAL)


def test_the_network_with_a_model_of_ones_own(run, tmp_path, source):
    model = write_tiny_model(tmp_path)
    result = run("correct", source, "--out", tmp_path / "out", "--model", model, "--device", "cpu", "--json")
    assert result.code == 0
    (series,) = json.loads(result.out)
    assert (series["method"], series["model"]) == ("cnn-mar", "tiny")


def test_json_alone_is_on_stdout(run, tmp_path, source):
    result = run("correct", source, "--out", tmp_path / "out", *LI, "--json")
    assert result.code == 0
    (series,) = json.loads(result.out)
    assert [s["status"] for s in series["slices"]] == ["no metal", "corrected", "corrected", "no metal"]
    assert series["folder"] == str(tmp_path / "out")
    assert MARKER not in result.out
    assert "slices corrected" in result.err


def test_json_for_case_files(run, tmp_path, case):
    result = run("correct", case, "--out", tmp_path / "out.h5", *LI, "--json")
    assert json.loads(result.out) == {"method": "li", "written": [str(tmp_path / "out.h5")], "failed": {}}
    listed = run("correct", case, "--out", tmp_path / "other.h5", *LI, "--json", "--dry-run")
    assert json.loads(listed.out)[0]["case"] == "case.h5"


def test_no_metal_is_no_error(run, tmp_path, volumes):
    write_small_series(tmp_path / "source", volumes[1])
    result = run("correct", tmp_path / "source", "--out", tmp_path / "out", *LI)
    assert result.code == 0
    assert "No metal was found" in result.err
    for k in range(1, 5):
        old, new = (pydicom.dcmread(tmp_path / name / f"{k:04d}.dcm") for name in ("source", "out"))
        np.testing.assert_array_equal(old.pixel_array, new.pixel_array)
    write_foreign_case(tmp_path / "case.h5", pin_mm=None)
    result = run("correct", tmp_path / "case.h5", "--out", tmp_path / "out.h5", *LI)
    assert result.code == 0
    assert "No metal was found" in result.err


@pytest.mark.parametrize("model", ["default", "no-such-model"])
def test_dry_run_writes_nothing(run, tmp_path, source, case, model):
    before = tree(tmp_path)
    for given in (source, case):
        result = run("correct", given, "--out", tmp_path / "new" / "out", "--model", model, "--dry-run")
        assert result.code == 0
        assert str(tmp_path / "new" / "out") in result.err
    result = run("correct", source, "--out", tmp_path / "out", "--dry-run", "--json")
    (listed,) = json.loads(result.out)
    assert listed["slices_with_metal"] == [k + 1 for k in METAL]
    assert listed["out"] == str(tmp_path / "out")
    assert tree(tmp_path) == before


def test_all_series(run, tmp_path, volumes):
    for name, uid in (("a", "2.25.11"), ("b", "2.25.12")):
        write_small_series(tmp_path / "source" / name, volumes[0][:2], series_uid=uid)
    result = run("correct", tmp_path / "source", "--out", tmp_path / "out", *LI, "--all", "--json", "--report")
    assert result.code == 0
    folders = [tmp_path / "out" / name for name in ("series-001", "series-002")]
    assert sorted((tmp_path / "out").iterdir()) == [tmp_path / "out" / "batch.json", *folders]
    listed = json.loads(result.out)
    assert [one["folder"] for one in listed] == [str(folder) for folder in folders]
    assert [one["source_uid"] for one in listed] == ["2.25.11", "2.25.12"]
    for folder in folders:
        assert (folder / "0002.dcm").is_file()
        assert ".partial" not in (folder / "report.json").read_text()
    one = run("correct", tmp_path / "source", "--out", tmp_path / "one", *LI, "--series", "2.25.12", "--json")
    assert [entry["source_uid"] for entry in json.loads(one.out)] == ["2.25.12"]
    assert (tmp_path / "one" / "0001.dcm").is_file()


def test_identifiers_only_where_they_are_asked_for(run, tmp_path, source):
    result = run("correct", source, "--out", tmp_path / "out", *LI, "--report", "--include-identifiers")
    assert result.code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"<td>{MARKER}^NAME</td>" in page
    assert f"<td>{MARKER}-4711</td>" in page
    assert MARKER not in (tmp_path / "out" / "report.json").read_text() + result.err + result.out
    refused = run("correct", source, "--out", tmp_path / "other", *LI, "--include-identifiers")
    check_refusal(refused, 2, "needs report")


def test_segmentation_and_report(run, tmp_path, source):
    pytest.importorskip("highdicom")
    result = run("correct", source, "--out", tmp_path / "out", *LI, "--seg", "--report")
    assert result.code == 0
    assert pydicom.dcmread(tmp_path / "out" / "metal-segmentation.dcm").pixel_array.any()
    texts = [(tmp_path / "out" / name).read_text() for name in ("report.html", "report.json")]
    assert not any(MARKER in text for text in texts)
    assert json.loads(texts[1])["method"] == "li"


def test_a_zip_archive(run, tmp_path, source):
    archive = Path(shutil.make_archive(str(tmp_path / "series"), "zip", source))
    content = archive.read_bytes()
    result = run("correct", archive, "--out", tmp_path / "out", *LI)
    assert result.code == 0
    assert "2 of 4 slices corrected" in result.err
    assert archive.read_bytes() == content


def test_overwrite_replaces_everything(run, tmp_path, source, case):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale.txt").write_text("old")
    (tmp_path / "out" / "report.json").write_text("{}")
    assert run("correct", source, "--out", tmp_path / "out", *LI, "--overwrite").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"000{k}.dcm" for k in range(1, 5)),
        "report.json",
    ]
    (tmp_path / "out.h5").write_text("old")
    assert run("correct", case, "--out", tmp_path / "out.h5", *LI, "--overwrite").code == 0
    assert h5py.is_hdf5(tmp_path / "out.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.h5", "out", "out.h5", "source"]


def test_a_folder_of_case_files(run, tmp_path):
    (tmp_path / "db").mkdir()
    for name in ("a.h5", "b.h5"):
        write_foreign_case(tmp_path / "db" / name)
    assert run("correct", tmp_path / "db", "--out", tmp_path / "out", *LI).code == 0
    assert tree(tmp_path / "out").keys() == {"a.h5", "b.h5", "batch.json"}
    content = (tmp_path / "db" / "a.h5").read_bytes()
    (tmp_path / "db" / "a.h5").write_bytes(content[:5000])
    result = run("correct", tmp_path / "db", "--out", tmp_path / "some", *LI)
    check_refusal(result, 8, "1 of 2 inputs")
    assert "a.h5: is no HDF5 case file, or is truncated" in result.err
    assert tree(tmp_path / "some").keys() == {"b.h5", "batch.json"}
    (tmp_path / "db" / "b.h5").unlink()
    before = tree(tmp_path)
    check_refusal(run("correct", tmp_path / "db", "--out", tmp_path / "none", *LI), 6, "a.h5")
    assert tree(tmp_path) == before


# ------------------------------------------------------------------ what goes wrong


def test_bad_sources(run, tmp_path, source, volumes):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text(f"{MARKER} wrote this")
    write_small_series(tmp_path / "two" / "a", volumes[0][:1], series_uid="2.25.11")
    write_small_series(tmp_path / "two" / "b", volumes[0][:1], series_uid="2.25.12")
    write_small_series(tmp_path / "cut", volumes[0][1:2])
    cut = tmp_path / "cut" / "0001.dcm"
    cut.write_bytes(cut.read_bytes()[:-3000])
    write_foreign_case(tmp_path / "cut.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "cut.h5").read_bytes()[:5000])
    (tmp_path / "text.h5").write_text("no case file")
    before = tree(tmp_path)
    for name, code, words in (
        ("empty", 3, ("empty",)),
        ("texts", 3, ("no usable CT series",)),
        ("nowhere", 3, ("nowhere",)),
        ("two", 4, ("2.25.11", "2.25.12")),
        ("cut", 6, ("0001.dcm",)),
        ("cut/0001.dcm", 6, ("0001.dcm",)),
        ("cut.h5", 6, ("cut.h5", "truncated")),
        ("text.h5", 6, ("text.h5",)),
        ("nowhere.h5", 6, ("nowhere.h5",)),
    ):
        for out in ("out", "new/out"):
            check_refusal(run("correct", tmp_path / name, "--out", tmp_path / out, *LI), code, *words)
            assert tree(tmp_path) == before, name


def test_a_truncated_slice_among_others(run, tmp_path, source):
    cut = source / "0003.dcm"
    cut.write_bytes(cut.read_bytes()[:-3000])
    before = tree(source)
    result = run("correct", source, "--out", tmp_path / "out", *LI)
    check_refusal(result, 8, "1 slice")
    assert "0003.dcm" in result.err
    assert tree(source) == before
    assert tree(tmp_path / "out").keys() == {"0001.dcm", "0002.dcm", "0004.dcm", "report.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_outputs_that_exist(run, tmp_path, source, case):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    (tmp_path / "file.h5").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for given, out in ((source, "folder"), (source, "link"), (source, "file.h5"), (case, "file.h5"), (case, "folder")):
        for flags in ((), ("--dry-run",)):
            check_refusal(run("correct", given, "--out", tmp_path / out, *LI, *flags), 5, out, "--overwrite")
            assert tree(tmp_path) == before


def test_the_source_is_never_overwritten(run, tmp_path, source, case, monkeypatch):
    write_toy_database(tmp_path / "db", ("p1",))
    model = write_tiny_model(tmp_path)
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    for given, out in ((source, source), (source, tmp_path), (source, "."), (case, case), (case, tmp_path)):
        check_refusal(run("correct", given, "--out", out, *LI, "--overwrite"), 2, "source")
    check_refusal(run("evaluate", "db", "--out", "db", "--model", model, "--overwrite"), 2, "source")
    assert tree(tmp_path) == before


def test_bad_models(run, tmp_path, source):
    model = write_tiny_model(tmp_path)
    for name in ("no-card", "bent", "no-weights"):
        for suffix in (".safetensors", ".json"):
            shutil.copy(model.with_suffix(suffix), tmp_path / f"{name}{suffix}")
    (tmp_path / "no-card.json").unlink()
    (tmp_path / "no-weights.safetensors").write_bytes(b"no weights")
    content = bytearray((tmp_path / "bent.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "bent.safetensors").write_bytes(content)
    before = tree(tmp_path)
    for name, word in (
        ("no-such-model", "no-such-model"),
        (tmp_path / "nowhere.safetensors", "nowhere.safetensors"),
        (tmp_path / "no-card.safetensors", "no-card.json"),
        (tmp_path / "bent.safetensors", "SHA-256"),
        (tmp_path / "no-weights.safetensors", "no-weights.safetensors"),
        (source / "0001.dcm", "0001.dcm"),
    ):
        result = run("correct", source, "--out", tmp_path / "out", "--model", name, "--device", "cpu")
        check_refusal(result, 7, word)
        assert tree(tmp_path) == before


def test_bad_options(run, tmp_path, source, case):
    np.save(tmp_path / "mask.npy", np.ones((4, 8, 8), bool))
    before = tree(tmp_path)
    for flags, words in (
        (("--method", "nmar3"), ("nmar3", "did you mean nmar")),
        (("--method", "everything"), ("everything", "cnn-mar")),
        (("--device", "tpu"), ("tpu",)),
        (("--metal-threshold", "nan"), ("threshold_hu", "nan")),
        (("--metal-threshold", "-100"), ("threshold_hu", "-100")),
        (("--method", "li", "--mask", tmp_path / "nowhere.npy"), ("nowhere.npy",)),
        (("--method", "li", "--mask", tmp_path / "mask.npy"), ("(4, 8, 8)", "(4, 64, 64)")),
        (("--method", "li", "--mask", source / "0001.dcm"), ("0001.dcm",)),
    ):
        check_refusal(run("correct", source, "--out", tmp_path / "out", *flags), 2, *words)
    check_refusal(run("correct", source, "--out", tmp_path / "out", *LI, "--series", "2.25.9"), 3, "2.25.9")
    for flag in ("--seg", "--report", "--all"):
        check_refusal(run("correct", case, "--out", tmp_path / "out.h5", *LI, flag), 2, flag)
    for arguments in (("correct", source), ("correct", source, "--out", "o", "--nope"), ("corect",)):
        result = run(*arguments)
        assert result.code == 2
        assert any(word in result.err for word in ("--out", "--nope", "corect"))
        assert "Traceback" not in result.err
    assert tree(tmp_path) == before


def test_disk_full(run, tmp_path, source, case, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written = []
    write = output.write_dataset

    def full_after_two(dataset, path):
        if len(written) == 2:
            full()
        written.append(path)
        write(dataset, path)

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "precious.txt").write_text("old")
    (tmp_path / "old" / "report.json").write_text("{}")
    before = tree(tmp_path)
    monkeypatch.setattr(output, "write_dataset", full_after_two)
    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    for given, out, flags in ((source, "new", ()), (source, "old", ("--overwrite",)), (case, "new.h5", ())):
        written.clear()
        result = run("correct", given, "--out", tmp_path / out, *LI, *flags)
        check_refusal(result, 1, os.strerror(errno.ENOSPC))
        assert tree(tmp_path) == before
    assert not written  # the last one was a case file


def test_a_bug_keeps_the_old_output_and_the_patient_to_itself(run, tmp_path, source, case, monkeypatch):
    def broken(self, method):
        raise RuntimeError(f"{MARKER}^NAME")

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "precious.txt").write_text("old")
    (tmp_path / "old" / "report.json").write_text("{}")
    (tmp_path / "old.h5").write_text("old")
    before = tree(tmp_path)
    monkeypatch.setattr(Correction, "image", broken)
    for given, out in ((source, "old"), (case, "old.h5")):
        result = run("correct", given, "--out", tmp_path / out, *LI, "--overwrite")
        assert result.code == 1
        assert "internal error (RuntimeError at test_cli.py:" in result.err
        assert "Traceback" not in result.err
        assert MARKER not in result.err
        assert tree(tmp_path) == before
    monkeypatch.setenv("CTMAR_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["ctmar", "correct", str(source), "--out", str(tmp_path / "new"), *LI])
    with pytest.raises(RuntimeError):
        cli.main()


def test_odd_headers_do_not_give_the_patient_away(run, tmp_path, source):
    number = 471147  # as many characters as the marker that takes its place in the file
    spoilt = {"PixelSpacing": [number, 1], "RescaleSlope": number, "KVP": number, "InstanceNumber": number}
    for k, (keyword, value) in enumerate(spoilt.items(), start=1):
        path = source / f"{k:04d}.dcm"
        dataset = pydicom.dcmread(path)
        setattr(dataset, keyword, value)
        dataset.save_as(path)
        content = path.read_bytes()
        assert content.count(str(number).encode()) == 1
        path.write_bytes(content.replace(str(number).encode(), MARKER.encode()))
    result = run("correct", source, "--out", tmp_path / "out", *LI)
    assert result.code == 0
    assert "skipped 2 file(s)" in result.err  # the first two; the others can be done without
    assert MARKER not in result.err + result.out
    assert tree(tmp_path / "out").keys() == {"0001.dcm", "0002.dcm", "report.json"}


# ------------------------------------------------------------------ processes of their own

BLOCKED = """
import sys, time
from ctmar import cli, methods

def block(self, method):
    print("correcting", flush=True)
    time.sleep(60)

methods.Correction.image = block
cli.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="no POSIX signals")
def test_signals_leave_nothing_behind(tmp_path, source, case):
    before = tree(tmp_path)
    jobs = []
    for given, out, number in (
        (source, "a/out", signal.SIGINT),
        (source, "out", signal.SIGTERM),
        (case, "out.h5", signal.SIGTERM),
    ):
        command = [sys.executable, "-c", BLOCKED, "correct", given, "--out", tmp_path / out, *LI]
        jobs.append((subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), number))
    try:
        assert all(job.stdout.readline() == "correcting\n" for job, _ in jobs)
        assert sum(name.endswith(".partial") for name in tree(tmp_path)) == 2  # so that there is something to clean up
        for job, number in jobs:
            job.send_signal(number)
        for job, number in jobs:
            _, err = job.communicate(timeout=20)
            assert job.returncode == 128 + number
            assert err.splitlines()[-1].startswith("ctmar: interrupted")
            assert "Traceback" not in err
    finally:
        for job, _ in jobs:
            job.kill()
            job.wait()
    assert tree(tmp_path) == before


FULL = """
import resource
from ctmar import cli

resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
cli.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="no limits for processes")
@pytest.mark.parametrize(
    "kind",
    [
        "series",
        "case",
    ],
)
def test_files_that_cannot_be_written_to_the_end(tmp_path, volumes, kind):
    """As on a full disk, but from the system itself; without metal, so that no compiled kernel is to be stored."""
    write_small_series(tmp_path / "series", volumes[1])
    write_foreign_case(tmp_path / "case.h5", mask=True)
    with h5py.File(tmp_path / "case.h5", "a") as file:
        file["image/uncorrected"] = np.random.default_rng(0).normal(size=(48, 48)).astype(np.float32)
    before = tree(tmp_path)
    source, out = (tmp_path / "series", "out") if kind == "series" else (tmp_path / "case.h5", "out.h5")
    done = subprocess.run(
        [sys.executable, "-c", FULL, "correct", source, "--out", tmp_path / out, "--method", "uncorrected"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = tree(tmp_path)
    check_refusal(SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr), 1, os.strerror(errno.EFBIG))
    assert after == before


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom ctmar import cli\nsys.argv = ['ctmar', {}'--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print({{'torch', 'numba', 'astra', 'scipy', 'skimage', 'h5py', 'pydicom', 'numpy'}} & set(sys.modules))"
    )
    for command in ("", "'correct', "):
        done = subprocess.run(
            [sys.executable, "-c", script.format(command)], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.splitlines()[-1] == "set()"
        assert "Not for diagnostic use" in done.stdout or "--method" in done.stdout


def test_the_installed_program_is_this_one():
    pyproject = tomllib.loads((Path(cli.__file__).parents[1] / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"]["ctmar"] == "ctmar.cli:main"


# ------------------------------------------------------------------ the other commands


def test_version_and_info(run):
    assert run("--version").out.strip() == ctmar.__version__
    result = run("info", "--json")
    assert (result.code, result.err) == (0, "")
    values = json.loads(result.out)
    assert values["ctmar"] == ctmar.__version__
    assert {"projections", "network", "packages", "optional", "models"} <= values.keys()
    assert "sha256" in values["models"]["default"]
    text = run("info").out
    assert "default" in text
    assert values["packages"]["torch"] in text


def test_exposure_and_field_of_view_of_a_simulation(run, tmp_path, monkeypatch):
    """Flags win over the file, photons over a file's mAs; contradictions are refused."""
    seen = []

    def simulate(sources, out, settings, **_):
        seen.append(settings)
        return SimpleNamespace(cases=(), failed=(), skipped=(), truncated=0)

    monkeypatch.setattr("ctmar.simulation.simulate", simulate)
    config = tmp_path / "scan.toml"
    config.write_text("[scan]\nmas = 150.0\ncrosstalk = 0.02\n", encoding="utf-8")
    base = ("simulate", "phantom", "--out", tmp_path / "db", "--config", config)
    for flags in ((), ("--mas", "80", "--fov", "300"), ("--photons", "1e6")):
        assert run(*base, *flags).code == 0
    assert [settings.scan.mas for settings in seen] == [150.0, 80.0, None]
    assert [settings.scan.photons for settings in seen] == [2e7, 2e7, 1e6]
    assert [settings.scan.crosstalk for settings in seen] == [0.02] * 3
    assert [settings.scanner().bins for settings in seen] == [920, 511, 920]  # 2 asin(150 / 595) / 1 mrad, and 1
    config.write_text("bins = 400\n", encoding="utf-8")
    assert run(*base, "--fov", "300").code == 0
    config.write_text("fov_mm = 300.0\n", encoding="utf-8")
    assert run(*base, "--bins", "400").code == 0
    config.write_text('geometry = "parallel"\narc_deg = 180\n', encoding="utf-8")
    assert run(*base, "--geometry", "flat").code == 0
    assert [settings.scanner().bins for settings in seen[3:]] == [511, 400, 920]
    config.write_text("[scan]\nmas = 150.0\n", encoding="utf-8")
    for flags, words in (
        (("--bins", "1"), ("bins must be at least 2",)),
        (("--mas", "80", "--photons", "1e6"), ("--photons", "--mas")),
        (("--fov", "900"), ("fov_mm", "528 mm")),
        (("--geometry", "parallel"), ("mas needs a fan",)),
    ):
        check_refusal(run(*base, *flags), 2, *words)


def test_evaluate(run, tmp_path):
    model = write_tiny_model(tmp_path, patients=("p2",))
    write_toy_database(tmp_path / "db", ("p1", "p2"))
    (tmp_path / "db" / "broken.h5").write_bytes(b"no case")
    before = tree(tmp_path / "db")
    flags = ("--model", model, "--device", "cpu")
    result = run("evaluate", tmp_path / "db", "--out", tmp_path / "out", *flags, "--json")
    assert result.code == 0
    assert "broken.h5" in result.err
    assert "seen 1 of these patients" in result.err
    rows = json.loads(result.out)
    assert rows == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {(row["path"], row["method"]) for row in rows} == {
        (path, method) for path in ("raw", "dicom") for method in (*METHODS, "cnn-mar-blended", "limit")
    }
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["metrics.csv", "metrics.json", "report.html", "statistics.csv", "tables.md", "worst.png"]
    assert "p2" not in (tmp_path / "out" / "metrics.json").read_text()
    check_refusal(run("evaluate", tmp_path / "db", "--out", tmp_path / "out", *flags), 5, "--overwrite")
    twice = (*flags, *flags[:2], "--overwrite")
    check_refusal(run("evaluate", tmp_path / "db", "--out", tmp_path / "out", *twice), 2, "called tiny")
    more = (*flags, "--model", "default", "--ablation", "--overwrite")
    table = run("evaluate", tmp_path / "db", "--out", tmp_path / "out", *more)
    assert table.code == 0
    assert "cnn-mar@default" in table.out
    assert "as prior" in (tmp_path / "out" / "tables.md").read_text()
    seen = run("evaluate", tmp_path / "db", "--out", tmp_path / "out", *flags, "--lesions", "--overwrite")
    assert seen.code == 0
    table = (tmp_path / "out" / "lesions.csv").read_text().splitlines()
    assert table[0].startswith("path,method,contrast_hu,radius_mm,auc")
    assert len(table) == 1 + 2 * (len(METHODS) + 2)
    assert "too few to say how well they are seen" in seen.err
    assert seen.err.count("warning: broken.h5") == 1
    assert "Faint lesions: discs of 30 HU" in (tmp_path / "out" / "tables.md").read_text()
    assert tree(tmp_path / "db") == before


def test_evaluate_nothing(run, tmp_path):
    model = write_tiny_model(tmp_path)
    (tmp_path / "db").mkdir()
    before = tree(tmp_path)
    for name in ("db", "nowhere"):
        result = run(
            "evaluate", tmp_path / name, "--out", tmp_path / "new" / "out", "--model", model, "--device", "cpu"
        )
        check_refusal(result, 3, name)
    check_refusal(run("evaluate", tmp_path / "db", "--out", tmp_path / "out", "--model", "none"), 7, "none")
    assert tree(tmp_path) == before


# --- a user's own shapes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "code", "word"),
    [
        ("none.png:0.7", 2, "no such mask"),
        ("sizeless.npy", 2, "says no pixel size"),
        ("damaged.mat", 6, "no readable mask"),
    ],
)
def test_shapes_that_cannot_be_used(tmp_path, run, shapes, code, word):
    np.save(tmp_path / "sizeless.npy", np.ones((4, 4)))
    (tmp_path / "damaged.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    result = run("simulate", "phantom", "--out", tmp_path / "db", "--shapes", tmp_path / shapes)
    check_refusal(result, code, word, shapes.partition(":")[0])
    assert not (tmp_path / "db").exists()


def test_the_family_own_needs_shapes(tmp_path, run):
    result = run("simulate", "phantom", "--out", tmp_path / "db", "--implants", "own")
    check_refusal(result, 2, "unknown implant 'own'")


# --- simulate -------------------------------------------------------------------------------------

SMALL = ("--cases", 2, "--seed", 1, "--implants", "clip", "--views", 60, "--bins", 200, "--device", "cpu")


@pytest.fixture
def clean_series(tmp_path):
    """A pelvis of the phantom as DICOM, with the marker in its patient's name."""
    image = phantom_slice("pelvis", grid=ImageGrid(144, 144, 2.9), seed=0, z_mm=0.0)
    write_small_series(tmp_path / "clean", image[None], pixel_mm=2.9)
    return tmp_path / "clean"


def test_simulate_looks_first_then_makes_a_database_and_rebuilds_it(run, clean_series, tmp_path):
    db, again = tmp_path / "db", tmp_path / "again"
    result = run("simulate", clean_series, "--out", db, *SMALL, "--preview")
    assert result.code == 0, result.err
    assert "planned.png: 2 cases; 0 slices or files left out" in result.err
    assert list(tree(db)) == ["planned.png"]
    result = run("simulate", clean_series, "--out", db, *SMALL, "--dicom")
    assert result.code == 0, result.err
    assert "2 cases; 0 slices" in result.err
    result = run("simulate", "--config", db / "simulation.toml", "--out", again, "--device", "cpu", "--dicom")
    assert result.code == 0, result.err
    made = tree(db)
    assert made.pop("planned.png")
    assert tree(again) == made
    assert {"dicom/case-000002/metal/0001.dcm", "case-000002.h5", "index.csv", "simulated.png"} <= made.keys()
    for path in again.rglob("*"):
        assert path.is_dir() or MARKER.encode() not in path.read_bytes()


def test_simulate_says_when_another_version_made_the_settings(run, clean_series, tmp_path):
    (tmp_path / "s.toml").write_text('version = "0.0.1"\n')
    result = run(
        "simulate", clean_series, "--out", tmp_path / "db", *SMALL, "--preview", "--config", tmp_path / "s.toml"
    )
    assert result.code == 0
    assert "was made by ctmar 0.0.1" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, ["at least one source"]),
        (("phantom", "--preview", "--resume"), 2, ["--preview scans nothing"]),
        (("phantom", "--implants", "hipp"), 2, ["did you mean hip?"]),
        (("phantom", "--kvp", 90), 2, ["90 kVp"]),
        (("phantom", "--views", 0), 2, ["views must be positive"]),
        (("EMPTY",), 3, ["no axial CT slice found"]),
        (("CUT.zip",), 6, ["the zip archive is damaged"]),
        (("CUT.dcm",), 3, ["none of the slices", "pixel data cannot be decoded"]),
        (("text.txt",), 3, ["1 x not a DICOM file"]),
        (("missing",), 3, ["no such file or folder"]),
    ],
)
def test_simulate_refuses(run, clean_series, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    whole = (clean_series / "0001.dcm").read_bytes()
    (tmp_path / "CUT.dcm").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "CUT.zip").write_bytes(b"PK\x03\x04" + bytes(1000))
    (tmp_path / "text.txt").write_text("no image " * 50)
    check_refusal(run("simulate", *arguments, "--out", "db"), code, *words)
    assert not (tmp_path / "db").exists()


def test_simulate_on_a_full_disk(run, clean_series, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run("simulate", clean_series, "--out", tmp_path / "db", *SMALL)
    check_refusal(result, 1, "No space left on device", "Make room", "--resume")
    assert list(tree(tmp_path / "db")) == ["simulation.toml"]


def test_a_source_is_never_overwritten_whatever_its_name(run, tmp_path, source):
    """An index of a medium in small letters, a folder of links: the images lie in the output that is asked for."""
    (tmp_path / "linked").mkdir()
    for file in source.iterdir():
        (tmp_path / "linked" / file.name).symlink_to(file)
    (source / "report.json").write_text("{}")
    before = tree(tmp_path)
    for given in (source, tmp_path / "linked"):
        check_refusal(run("correct", given, "--out", source, *LI, "--overwrite"), 2, "source")
        assert tree(tmp_path) == before


def test_what_the_output_holds_of_the_users_is_not_replaced(run, tmp_path, source):
    assert run("correct", source, "--out", tmp_path / "out", *LI, "--seg").code == 0
    before = tree(tmp_path)
    mask = tmp_path / "out" / "metal-segmentation.dcm"
    check_refusal(run("correct", source, "--out", tmp_path / "out", *LI, "--mask", mask, "--overwrite"), 2, "never")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    result = run("correct", source, "--out", tmp_path / "precious", *LI, "--overwrite")
    check_refusal(result, 5, "holds something else")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"
    assert {name: content for name, content in tree(tmp_path).items() if "precious" not in name} == before


def test_settings_in_a_file(run, tmp_path, source):
    config = tmp_path / "c.toml"
    for text, words in (
        ('preset = "hipp"', ("hipp", "did you mean hip?")),
        ("preset = 3", ("preset",)),
        ("metal = 3", ("table",)),
        ('device = "tpu"', ("tpu",)),
        ("[metal]\ngrow = 3", ("grow_hu",)),
    ):
        config.write_text(text)
        result = run("correct", source, "--out", tmp_path / "out", *LI[:2], "--config", config)
        check_refusal(result, 2, *words)
    config.write_text('preset = "hip"\nmethod = "nmar2"\nstrength = 0.5\n[metal]\nthreshold_hu = 3050')
    result = run("correct", source, "--out", tmp_path / "out", *LI, "--config", config, "--preset", "spine")
    assert result.code == 0
    assert "No metal" in result.err
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    assert (settings["preset"], settings["method"], settings["strength"]) == ("spine", "li", 0.5)


def test_a_dry_run_lists_several_series(run, tmp_path, volumes):
    for k in (1, 2):
        write_small_series(tmp_path / "two" / str(k), volumes[2 - k], series_uid=f"2.25.1{k}")
    result = run("correct", tmp_path / "two", "--out", tmp_path / "out", *LI, "--dry-run")
    assert result.code == 0
    assert "2.25.12" in result.err
    assert "metal in 2 slice(s), 2-3" in result.err
    assert "no metal" in result.err
    check_refusal(run("correct", tmp_path / "two", "--out", tmp_path / "out", *LI), 4, "metal in 2", "no metal")
