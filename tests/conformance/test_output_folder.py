"""Everything that `ctmar correct` writes with all of its flags, judged by dicom3tools and dcmtk."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from tests.conformance.programs import errors, every_output_flag, needs, output, small_correction

pytestmark = needs("dciodvfy", "dcentvfy", "dcmdump")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """The files of a source and those of its correction."""
    return small_correction(tmp_path_factory.mktemp("output"))


def test_the_flags_are_found() -> None:
    assert {"--seg", "--report"} <= set(every_output_flag())


def test_every_file_is_without_error(folders: tuple[list[Path], list[Path]]) -> None:
    sources, written = folders
    assert len(written) > len(sources)
    known = sum((errors(path) for path in sources), start=errors(sources[0]))
    assert not known
    assert {str(path): errors(path) for path in written if errors(path)} == {}


def test_every_file_is_read_by_dcmtk(folders: tuple[list[Path], list[Path]]) -> None:
    for path in folders[1]:
        dump = output("dcmdump", "-q", path)
        assert "SOPInstanceUID" in dump
        assert "E:" not in dump, path.name
        assert "W:" not in dump, path.name


def test_source_and_output_belong_together(folders: tuple[list[Path], list[Path]]) -> None:
    """One patient, one study, one frame of reference; no UID twice."""
    sources, written = folders
    assert output("dcentvfy", *sources, *written) == ""
    read = [pydicom.dcmread(path, stop_before_pixels=True) for path in sources + written]
    assert len({ds.SOPInstanceUID for ds in read}) == len(read)
    assert len({ds.StudyInstanceUID for ds in read}) == 1
    of_sources = {ds.SeriesInstanceUID for ds in read[: len(sources)]}
    assert of_sources.isdisjoint(ds.SeriesInstanceUID for ds in read[len(sources) :])
