"""Many sources into one folder: what is kept, resumed, refused, and left over when something fails."""

import json
import shutil

import numpy as np
import pytest

from benchmarks.lost_workers import run as with_losses
from ctmar import batch, slice_correction
from ctmar.batch import BATCH_FILE, FAILED, THERE, WRITTEN, Job, run_batch
from ctmar.cluster import ALONE, Cluster, has_dask
from ctmar.correcting import correct_dicom, correct_many
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.series import find_series
from ctmar.errors import (
    NoUsableSeriesError,
    OutputExistsError,
    SomeSlicesFailedError,
    UnsupportedInputError,
    UsageError,
)
from tests.ctmar.small import GEOMETRY, MARKER, small_volumes, write_foreign_case, write_small_series

SETTINGS = CorrectionSettings(method="li", device="cpu")


@pytest.fixture(autouse=True)
def _small_scan(monkeypatch):
    monkeypatch.setattr(slice_correction, "reprojection_geometry", lambda grid: GEOMETRY)


@pytest.fixture
def jobs(tmp_path):
    """Two series and a case file."""
    volume = small_volumes()[0][:2]
    found = []
    for uid in ("2.25.11", "2.25.12"):
        write_small_series(tmp_path / uid, volume, series_uid=uid)
        found += [Job(one.key, one) for one in find_series(tmp_path / uid).series]
    write_foreign_case(tmp_path / "case.h5")
    return [*found, Job("c", tmp_path / "case.h5")]


def status(out):
    return {one["name"]: one["status"] for one in json.loads((out / BATCH_FILE).read_text())["jobs"]}


def many(sources, out, settings=SETTINGS, *, resume=False, dry_run=False):
    correct_many(
        sources, out, settings, "default", resume=resume, cluster=ALONE, as_json=False, dry_run=dry_run
    )  # fmt: skip


def test_everything_goes_into_one_folder(jobs, tmp_path):
    said = []
    outcomes = run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=ALONE, tell=lambda *step: said.append(step))
    assert [one.status for one in outcomes] == [WRITTEN] * 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "batch.json", "case.h5", "series-001", "series-002",
    ]  # fmt: skip
    assert outcomes[0].result.corrected == 1
    assert said[-1] == ("correcting", 3, 3)
    assert MARKER not in (tmp_path / "out" / BATCH_FILE).read_text()
    assert str(tmp_path) not in (tmp_path / "out" / BATCH_FILE).read_text()


def test_resuming_makes_what_is_missing_and_takes_more(jobs, tmp_path):
    out = tmp_path / "out"
    run_batch(jobs[:2], out, SETTINGS, "", cluster=ALONE)
    shutil.rmtree(out / "series-001")
    (out / ".series-001.host.1.partial").mkdir()
    kept = (out / "series-002" / "0001.dcm").read_bytes()
    outcomes = run_batch(jobs[::-1], out, SETTINGS, "", cluster=ALONE, resume=True)
    assert {one.name: one.status for one in outcomes} == {
        "case.h5": WRITTEN, "series-002": THERE, "series-001": WRITTEN,
    }  # fmt: skip
    assert (out / "series-002" / "0001.dcm").read_bytes() == kept
    assert outcomes[1].result.corrected == 1
    assert not list(out.glob(".*"))


def test_what_cannot_be_resumed(jobs, tmp_path):
    out = tmp_path / "out"
    run_batch(jobs[:1], out, SETTINGS, "", cluster=ALONE)
    with pytest.raises(OutputExistsError):
        run_batch(jobs[:1], out, SETTINGS, "", cluster=ALONE)
    with pytest.raises(UsageError, match="other settings"):
        run_batch(jobs[:1], out, CorrectionSettings(method="bhc"), "", cluster=ALONE, resume=True)
    for damage in ("", "{", '{"jobs": [{"key": "a", "name": "../x"}]}', '{"jobs": 3}'):
        (out / BATCH_FILE).write_text(damage)
        with pytest.raises(UsageError):
            run_batch(jobs[:1], out, SETTINGS, "", cluster=ALONE, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="cannot be resumed"):
        run_batch(jobs[:1], tmp_path / "mine", SETTINGS, "", cluster=ALONE, resume=True)


def test_overwriting_leaves_nothing_of_before(jobs, tmp_path):
    out = tmp_path / "out"
    run_batch(jobs, out, SETTINGS, "", cluster=ALONE)
    run_batch(jobs[:1], out, CorrectionSettings(method="bhc", device="cpu", overwrite=True), "", cluster=ALONE)
    assert sorted(path.name for path in out.iterdir()) == ["batch.json", "series-001"]
    assert json.loads((out / "series-001" / "report.json").read_text())["method"] == "bhc"


def test_an_overwriting_that_was_interrupted_leaves_nothing_of_before_to_resume(jobs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_batch(jobs[:2], out, SETTINGS, "", cluster=ALONE)
    anew = CorrectionSettings(method="bhc", device="cpu", overwrite=True)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(batch, "correct_series", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_batch(jobs[:2], out, anew, "", cluster=ALONE)
    settings = CorrectionSettings(method="bhc", device="cpu")
    assert [one.status for one in run_batch(jobs[:2], out, settings, "", cluster=ALONE, resume=True)] == [WRITTEN] * 2


def test_no_names_of_files_in_what_is_written(jobs, tmp_path):
    mask = tmp_path / "DOE-JOHN.npy"
    metal = np.zeros((2, 64, 64), bool)
    metal[1, 30:33, 38:41] = True
    np.save(mask, metal)
    (tmp_path / "case.h5").write_bytes(b"no case")
    run_batch(jobs, tmp_path / "out", CorrectionSettings(method="li", device="cpu", mask=mask), "", cluster=ALONE)
    said = (tmp_path / "out" / BATCH_FILE).read_text()
    assert "DOE" not in said
    assert str(tmp_path) not in said


def test_one_series_does_not_take_the_place_of_many(jobs, tmp_path):
    out = tmp_path / "out"
    run_batch(jobs, out, SETTINGS, "", cluster=ALONE)
    with pytest.raises(OutputExistsError, match="--resume"):
        correct_dicom_(tmp_path / "2.25.11", out, SETTINGS)
    with pytest.raises(OutputExistsError, match="holds something else"):
        correct_dicom_(tmp_path / "2.25.11", out, CorrectionSettings(method="li", device="cpu", overwrite=True))
    correct_dicom_(tmp_path / "2.25.11", out, SETTINGS, resume=True)
    assert (out / "series-002").is_dir()


def correct_dicom_(source, out, settings, *, resume=False):
    correct_dicom(
        source, out, settings, "default", uid=None, all_=False, resume=resume, cluster=ALONE, as_json=False,
        dry_run=False,
    )  # fmt: skip


def test_one_that_fails_stops_no_other(jobs, tmp_path):
    (tmp_path / "case.h5").write_bytes(b"no case")
    outcomes = run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=ALONE)
    assert [one.status for one in outcomes] == [WRITTEN, WRITTEN, FAILED]
    assert status(tmp_path / "out")["case.h5"] == FAILED
    write_foreign_case(tmp_path / "case.h5")
    assert run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=ALONE, resume=True)[2].status == WRITTEN


def test_a_bug_with_one_stops_no_other(jobs, tmp_path, monkeypatch):
    real = batch.correct_series

    def buggy(series, *arguments, **options):
        if series.uid == "2.25.11":
            raise KeyError(MARKER)
        return real(series, *arguments, **options)

    monkeypatch.setattr(batch, "correct_series", buggy)
    outcomes = run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=ALONE)
    assert [one.status for one in outcomes] == [FAILED, WRITTEN, WRITTEN]
    assert outcomes[0].message.startswith("internal error (KeyError at ")


def test_a_full_disk_ends_all_and_can_be_resumed(jobs, tmp_path, monkeypatch):
    real = batch.correct_case

    def full(*_, **__):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(batch, "correct_case", full)
    with pytest.raises(OSError, match="No space"):
        run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=ALONE)
    assert status(tmp_path / "out") == {"series-001": WRITTEN, "series-002": WRITTEN, "case.h5": ""}
    monkeypatch.setattr(batch, "correct_case", real)
    outcomes = run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=ALONE, resume=True)
    assert [one.status for one in outcomes] == [THERE, THERE, WRITTEN]


def test_where_all_fails_nothing_is_left(jobs, tmp_path):
    (tmp_path / "case.h5").write_bytes(b"no case")
    (outcome,) = run_batch(jobs[2:], tmp_path / "out", SETTINGS, "", cluster=ALONE)
    assert outcome.status == FAILED
    assert not (tmp_path / "out").exists()


def test_many_sources(jobs, tmp_path, capsys):
    """Of several kinds, one of them empty, one not there, one twice."""
    (tmp_path / "empty").mkdir()
    names = ("2.25.11", "2.25.12", "case.h5", "empty", "nowhere")
    sources = [tmp_path / name for name in names]
    many(sources, tmp_path / "dry", dry_run=True)
    said = capsys.readouterr().err
    assert "case.h5 -> " in said
    assert "2.25.12: number" in said
    assert not (tmp_path / "dry").exists()
    with pytest.raises(SomeSlicesFailedError, match="2 source"):
        many(sources, tmp_path / "out")
    said = capsys.readouterr().err
    assert "empty: no usable CT series" in said
    assert "nowhere: no such file or folder" in said
    assert "3 written of 3, 2 source(s) left out" in " ".join(said.split())
    with pytest.raises(SomeSlicesFailedError, match="1 source"):
        many([sources[0], sources[2], sources[0]], tmp_path / "twice")
    with pytest.raises(NoUsableSeriesError, match="nowhere"):
        many(sources[3:], tmp_path / "none")
    (tmp_path / "case.h5").write_bytes(b"no case")
    with pytest.raises(UnsupportedInputError, match=r"case\.h5"):
        many([sources[2], sources[4]], tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.skipif(not has_dask(), reason="dask is not installed (pip install ctmar[dask])")
def test_workers_do_the_same(jobs, tmp_path):
    with Cluster(2) as workers:
        outcomes = run_batch(jobs, tmp_path / "out", SETTINGS, "", cluster=workers)
    assert [one.status for one in outcomes] == [WRITTEN] * 3
    assert [one.result.corrected for one in outcomes[:2]] == [1, 1]


@pytest.mark.slow
@pytest.mark.skipif(not has_dask(), reason="dask is not installed (pip install ctmar[dask])")
def test_a_worker_is_killed_and_the_scheduler_restarted(tmp_path):
    result = with_losses(tmp_path, series=20, slices=2, method="li")
    assert result.starts > 3
    assert result.series == 20
    assert result.files == 20 * 3 + 1
    assert result.differing == []
