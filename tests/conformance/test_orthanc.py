"""A real DICOM server takes what `ctmar correct` writes, files it under the study of its source, and gives it back."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctmar import slice_correction
from tests.conformance.orthanc import PLUGINS, PROGRAM, STORESCU, Orthanc, running
from tests.conformance.programs import SHARED_DATA, correct, every_output_flag, needs_shared_data, small_correction
from tests.ctmar.small import MARKER

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="not installed: Orthanc"),
    pytest.mark.skipif(not PLUGINS, reason="not installed: DICOMweb plugin of Orthanc"),
]
STUDY, SERIES, INSTANCE, MODALITY, PATIENT = "0020000D", "0020000E", "00080018", "00080060", "00100020"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def server(started: Orthanc) -> Orthanc:
    started.delete_all()
    return started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """A source, and all that is written of it: corrected series, segmentation, and what other flags add."""
    return small_correction(tmp_path_factory.mktemp("series"))


def check(server: Orthanc, sources: list[Path], written: list[Path]) -> None:
    """The server has one study, in it the series of source and output, and every instance unchanged."""
    read = {path: pydicom.dcmread(path) for path in sources + written}
    (study,) = {str(ds.StudyInstanceUID) for ds in read.values()}
    (found,) = server.qido("studies")
    assert found[STUDY] == study
    assert len(server.json("/patients")) == len(server.json("/studies")) == 1
    series = {str(ds.SeriesInstanceUID): str(ds.Modality) for ds in read.values()}
    assert len(series) > 1
    assert {one[SERIES]: one[MODALITY] for one in server.qido(f"studies/{study}/series")} == series
    corrected = {str(read[path].SeriesInstanceUID) for path in written if read[path].Modality == "CT"}
    for uid in corrected:
        assert [one[SERIES] for one in server.qido(f"series?SeriesInstanceUID={uid}")] == [uid]
        stored = server.qido(f"studies/{study}/series/{uid}/instances")
        assert {one[INSTANCE] for one in stored} == {
            str(ds.SOPInstanceUID) for ds in read.values() if ds.SeriesInstanceUID == uid
        }
    for path, ds in read.items():
        back = pydicom.dcmread(io.BytesIO(server.wado(study, str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID))))
        assert back.file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID, path.name
        np.testing.assert_array_equal(back.pixel_array, ds.pixel_array)
        assert back == ds, path.name


@pytest.mark.parametrize("way", ["stow", "rest", "c_store"])
def test_a_server_takes_source_and_output_and_gives_them_back(
    server: Orthanc, files: tuple[list[Path], list[Path]], way: str
) -> None:
    if way == "c_store" and shutil.which(STORESCU) is None:
        pytest.skip("not installed: storescu of dcmtk")
    sources, written = files
    for some in files:
        getattr(server, f"store_by_{way}")(some)
    check(server, sources, written)
    assert {one[PATIENT] for one in server.qido("studies?includefield=00100020")} == {f"{MARKER}-4711"}


def test_the_segmentation_refers_to_images_that_the_server_has(
    server: Orthanc, files: tuple[list[Path], list[Path]]
) -> None:
    sources, written = files
    server.store_by_stow(sources + written)
    (segmentation,) = [path for path in written if pydicom.dcmread(path).Modality == "SEG"]
    ds = pydicom.dcmread(segmentation)
    (series,) = ds.ReferencedSeriesSequence
    there = {
        one[INSTANCE]
        for one in server.qido(f"studies/{ds.StudyInstanceUID}/series/{series.SeriesInstanceUID}/instances")
    }
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} <= there


@needs_shared_data
def test_a_real_series(server: Orthanc, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    chosen = sorted((SHARED_DATA / "metal" / "lungfcp-0001-sternal-wires").glob("*.dcm"))[:3]
    for path in chosen:
        shutil.copy(path, tmp_path / "source")
    with pytest.MonkeyPatch.context() as patch:
        full = slice_correction.reprojection_geometry
        patch.setattr(slice_correction, "reprojection_geometry", lambda grid: _few_views(full(grid)))
        written = correct(tmp_path / "source", tmp_path / "out", every_output_flag())
    server.store_by_stow(chosen)
    server.store_by_c_store(written)
    check(server, chosen, written)


def _few_views(geometry):
    from dataclasses import replace

    return replace(geometry, views=90)
