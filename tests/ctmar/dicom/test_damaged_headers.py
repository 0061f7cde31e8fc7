"""Headers with values, VRs and sequences that no scanner writes: a sentence or a derived image, never a traceback."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.derived import DerivedSeries, derive, write_dataset
from ctmar.dicom.difference import difference_image
from ctmar.dicom.pixels import Slice, read_slice
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.source import quiet_pydicom
from ctmar.errors import UnsupportedInputError
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save, write_ct_series
from tests.ctmar.small import MARKER
from tests.fuzz.elements import DicomFile, Element, file_bytes, parse_file

NEW = DerivedSeries(uid="2.25.9", description="d", method="li", version="1", created=datetime(2025, 6, 7, tzinfo=UTC))
SOURCE_IMAGES, SERIES_NUMBER, IMAGE_TYPE = b"\x08\x00\x12\x21", b"\x20\x00\x11\x00", b"\x08\x00\x08\x00"
MANUFACTURER, SCHEMES, DESCRIPTION = b"\x08\x00\x70\x00", b"\x08\x00\x10\x01", b"\x08\x00\x3e\x10"


def parsed(ds: Dataset, path: Path) -> DicomFile:
    return parse_file(save(ds, path).read_bytes())


def put(file: DicomFile, *elements: Element) -> DicomFile:
    new = {e.tag for e in elements}
    body = [*(e for e in file.body if e.tag not in new), *elements]
    return DicomFile(file.preamble, file.meta, sorted(body, key=lambda e: e.number))


def load(path: Path) -> Slice:
    (series,) = choose_series(find_series(path))
    return read_slice(series.slices[0])


def nested(levels: int, leaf: Element) -> Element:
    for _ in range(levels):
        leaf = Element(SOURCE_IMAGES, b"SQ", [[leaf]])
    return Element(b"\x08\x00\x40\x11", b"SQ", [[leaf]])


@pytest.mark.parametrize(
    "element",
    [
        Element(SERIES_NUMBER, b"FD", b"\0\0\0\0\0\0\xf0\x7f"),
        Element(SERIES_NUMBER, b"SQ", b""),
        Element(IMAGE_TYPE, b"FD", b"\0\0\0\0\0\0\xf0\x3f"),
        Element(DESCRIPTION, b"UL", b"0 "),
        Element(DESCRIPTION, b"OB", b"text"),
        Element(MANUFACTURER, b"UN", b"\xff\xff"),
        Element(b"\x02\x00\x16\x00", b"AE", b"SCANNER "),
    ],
    ids=lambda e: f"{e.number:08x}-{e.vr.decode()}",
)
def test_what_is_set_anew_does_not_depend_on_how_the_source_coded_it(tmp_path: Path, element: Element) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(file_bytes(put(parsed(ct_dataset(ramp_hu(1)[0]), path), element)))
    write_dataset(derive(load(path), None, series=NEW), tmp_path / "b.dcm")
    result = pydicom.dcmread(tmp_path / "b.dcm")
    assert list(result.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert result.SeriesDescription == "d"
    assert result["SeriesNumber"].VR == "IS"
    assert result.SeriesNumber >= 9000
    assert result.Manufacturer == "ctmar developers"
    np.testing.assert_array_equal(result.pixel_array, pydicom.dcmread(path).pixel_array)


def test_a_sop_class_that_only_the_file_meta_information_has(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    file = parsed(ct_dataset(ramp_hu(1)[0]), path)
    path.write_bytes(file_bytes(DicomFile(file.preamble, file.meta, [e for e in file.body if e.number != 0x00080016])))
    result = derive(load(path), None, series=NEW)
    assert result.SOPClassUID == result.SourceImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    "element",
    [
        Element(SCHEMES, b"US", b"\1\0\2\0"),
        Element(SCHEMES, b"SQ", b"SECRET"),
        nested(300, Element(MANUFACTURER, b"LO", MARKER.encode())),
        nested(12, Element(b"\x18\x00\x20\x10", b"SQ", b"SECRET")),
    ],
    ids=["no sequence", "damaged item", "300 levels", "12 levels"],
)
def test_a_damaged_header_is_one_sentence_without_patient_data(tmp_path: Path, element: Element) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(file_bytes(put(parsed(ct_dataset(ramp_hu(1)[0]), path), element)))
    with pytest.raises(UnsupportedInputError, match=r"a\.dcm: its header is damaged") as caught:
        derive(load(path), None, series=NEW)
    assert MARKER not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_eight_levels_of_sequences_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    element = nested(6, Element(MANUFACTURER, b"LO", b"deep"))
    path.write_bytes(file_bytes(put(parsed(ct_dataset(ramp_hu(1)[0]), path), element)))
    write_dataset(derive(load(path), None, series=NEW), tmp_path / "b.dcm")
    assert b"deep" in (tmp_path / "b.dcm").read_bytes()


def test_an_attribute_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    derived = derive(load(save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm")), None, series=NEW)
    with quiet_pydicom():
        derived.add_new(0x00181020, "FL", MARKER)
    with pytest.raises(UnsupportedInputError, match="cannot be written") as caught:
        write_dataset(derived, tmp_path / "b.dcm")
    assert MARKER not in str(caught.value)
    assert not (tmp_path / "b.dcm").exists()


def test_a_header_that_no_image_of_differences_can_be_made_of_is_one_sentence(tmp_path: Path) -> None:
    source = load(save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm"))
    derived = derive(source, None, series=NEW)
    with quiet_pydicom():
        derived.add_new("DerivationCodeSequence", "US", 7)  # as a damaged header may say
    with pytest.raises(UnsupportedInputError, match="leave --difference out"):
        difference_image(source, source.image_hu, derived, series_uid="2.25.10")


def test_one_slice_with_a_damaged_header_is_left_out_of_the_series(tmp_path: Path) -> None:
    files = write_ct_series(tmp_path / "source", ramp_hu(3))
    file = put(parse_file(files[1].read_bytes()), Element(SCHEMES, b"US", b"\1\0\2\0"))
    files[1].write_bytes(file_bytes(file))
    (series,) = choose_series(find_series(tmp_path / "source"))
    result = correct_series(series, tmp_path / "out", CorrectionSettings("li", device="cpu"))
    assert [s.status for s in result.slices] == ["no metal", "unreadable", "no metal"]
    assert "0002.dcm" in result.failed[0].file
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0001.dcm", "0003.dcm", "report.json"]


def test_a_length_beyond_all_memory_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length of 4 GiB in a small file: Python asks for all of it at once, which fails where memory is bounded."""
    save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm")

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pydicom, "dcmread", exhausted)
    (skipped,) = find_series(tmp_path).skipped
    assert skipped.reason == "damaged or truncated header (MemoryError)"


def test_a_character_set_that_no_reader_takes_is_left_out(tmp_path: Path) -> None:
    """The character set is decoded before anything else: with a null in it, nobody could open the derived image."""
    path = tmp_path / "a.dcm"
    odd = Element(b"\x08\x00\x05\x00", b"SQ", b"ISO_IR 100")
    path.write_bytes(file_bytes(put(parsed(ct_dataset(ramp_hu(1)[0]), path), odd)))
    write_dataset(derive(load(path), None, series=NEW), tmp_path / "b.dcm")
    result = pydicom.dcmread(tmp_path / "b.dcm")
    assert "SpecificCharacterSet" not in result
    np.testing.assert_array_equal(result.pixel_array, load(path).stored)
