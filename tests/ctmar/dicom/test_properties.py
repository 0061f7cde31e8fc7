"""What holds for every CT series, whatever its tags are: drawn with hypothesis."""

from __future__ import annotations

import math
import random
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import DetectionSettings
from ctmar.dicom.derived import DerivedSeries, derive, new_uid, write_dataset
from ctmar.dicom.pixels import read_slice, to_stored
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.synthetic import ct_dataset, save
from tests.fuzz.elements import parse_file

SIZE = (6, 8)
NO_METAL = CorrectionSettings("li", metal=DetectionSettings(smallest_mm3=1e12), device="cpu")
KEPT = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "FrameOfReferenceUID", "PatientPosition", "GantryDetectorTilt", "InstanceNumber", "RescaleSlope",
    "RescaleIntercept", "BitsStored", "PatientName", "SpecificCharacterSet", "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)  # fmt: skip
"""Attributes that a correction must not touch, to the byte."""

NAMES = (
    ("ISO_IR 100", b"M\xfcller^J\xfcrg"),
    ("ISO_IR 192", "Ωμέγα^山田".encode()),
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    ("GB18030", "王^小东".encode("gb18030")),
    ("ISO_IR 100", b"\xff\xfe broken \x81"),
    ("", b"plain^name"),
)
fast = settings(
    deadline=None,
    max_examples=30,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Pixels:
    """How the pixels of an image are coded."""

    slope: float
    intercept: float
    bits: int
    signed: bool
    padding: tuple[int, ...]
    seed: int

    @property
    def limits(self) -> tuple[int, int]:
        return (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def stored(self, number: int) -> np.ndarray:
        """Stored values over the whole range; the declared padding in a corner, and by chance anywhere."""
        low, high = self.limits
        image = np.random.default_rng([self.seed, number]).integers(low, high + 1, SIZE)
        if self.padding:
            image[:2, :3] = self.padding[0]
        return image


@dataclass(frozen=True)
class Place:
    """Where the images of a series lie."""

    orientation: tuple[float, ...]
    patient_position: str
    spacing: tuple[str, str]
    z_mm: tuple[float, ...]
    numbers: tuple[int | None, ...]
    order: int

    def position(self, k: int) -> list[float]:
        return [-40.5, 12.25, self.z_mm[k]]


def decimal(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False).map(lambda v: float(f"{v:.5g}"))


@st.composite
def pixels(draw: st.DrawFn) -> Pixels:
    slope = draw(st.sampled_from([1.0, 2.0, 0.5, 0.1, 1.000244, 3.3, -1.0, -0.25]) | decimal(0.01, 20))
    intercept = draw(st.sampled_from([0.0, -1024.0, -1000.0, -8192.0, 1000.0, 0.5]) | decimal(-5000, 5000))
    bits, signed = draw(st.integers(8, 16)), draw(st.booleans())
    found = Pixels(slope, intercept, bits, signed, (), draw(st.integers(0, 2**32 - 1)))
    low, high = found.limits
    value = st.sampled_from([low, high, 0, max(low, -2000)]) | st.integers(low, high)
    padding = tuple(draw(st.lists(value, max_size=2)))
    return replace(found, padding=padding)


def tilted(degrees: float, flip: int) -> tuple[float, ...]:
    angle = math.radians(degrees)
    return (flip, 0.0, 0.0, 0.0, round(flip * math.cos(angle), 6), round(math.sin(angle), 6))


@st.composite
def places(draw: st.DrawFn) -> Place:
    flat = st.sampled_from(
        [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, -1, 0), (0, 1, 0, -1, 0, 0)]
    )
    orientation = draw(flat | st.builds(tilted, st.floats(-40, 40), st.sampled_from([1, -1])))
    count = draw(st.integers(1, 5))
    z_mm = draw(st.lists(st.integers(-400, 400).map(lambda v: v * 0.75), min_size=count, max_size=count, unique=True))
    numbers = draw(st.lists(st.none() | st.integers(-5, 2000), min_size=count, max_size=count))
    position = draw(st.sampled_from(["HFS", "FFS", "HFP", "FFP", "HFDR", "FFDL"]))
    spacing = draw(st.tuples(*2 * [st.sampled_from(["1", "0.48828125", "0.9765625", "2.5", "0.7"])]))
    order = draw(st.integers(0, 2**32 - 1))
    return Place(tuple(map(float, orientation)), position, spacing, tuple(z_mm), tuple(numbers), order)


def image(coding: Pixels, place: Place, k: int, name: int = 0) -> Dataset:
    ds = ct_dataset(np.zeros(SIZE), number=k + 1, signed=coding.signed, bits_stored=coding.bits)
    ds.RescaleSlope, ds.RescaleIntercept = f"{coding.slope:.10g}", f"{coding.intercept:.10g}"
    stored = coding.stored(k)
    ds.PixelData = stored.astype("<i2" if coding.signed else "<u2").tobytes()
    if not coding.signed or coding.bits == 16:
        unused = 0
    else:  # sign extension is not demanded: bits above Bits Stored may hold anything (PS3.5 section 8.1.1)
        unused = 0xFFFF & ~((1 << coding.bits) - 1)
        ds.PixelData = ((stored & 0xFFFF) & ~unused | (unused & -(coding.seed & 1))).astype("<u2").tobytes()
    vr = "SS" if coding.signed else "US"
    for keyword, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), coding.padding, strict=False):
        ds.add_new(keyword, vr, value)
    ds.ImageOrientationPatient = [f"{v:g}" for v in place.orientation]
    ds.ImagePositionPatient = place.position(k)
    ds.PatientPosition = place.patient_position
    ds.PixelSpacing = list(place.spacing)
    ds.SpecificCharacterSet = NAMES[name][0].split("\\")
    ds.add_new("PatientName", "PN", NAMES[name][1])
    if place.numbers[k] is None:
        del ds.InstanceNumber
    else:
        ds.InstanceNumber = place.numbers[k]
    ds.private_block(0x0019, "SCANNER", create=True).add_new(0x10, "LO", "private")
    return ds


def write(coding: Pixels, place: Place, folder: Path, name: int = 0) -> list[Path]:
    """The series in files whose names say nothing of the order."""
    names = [f"{k:02d}.dcm" for k in range(len(place.z_mm))]
    random.Random(place.order).shuffle(names)
    return [save(image(coding, place, k, name), folder / names[k]) for k in range(len(place.z_mm))]


def raw_bytes(path: Path) -> dict[str, tuple[bytes, bytes]]:
    """VR and value of the attributes that are to be kept, as they stand in the file."""
    elements = {e.number: e for e in parse_file(path.read_bytes()).body}
    found = {keyword: elements.get(int(tag_for_keyword(keyword) or 0)) for keyword in KEPT}
    return {keyword: (e.vr, e.value) for keyword, e in found.items() if e and isinstance(e.value, bytes)}


@given(pixels(), places(), st.integers(0, len(NAMES) - 1))
@fast
def test_what_is_not_corrected_comes_back_to_the_bit(coding: Pixels, place: Place, name: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = write(coding, place, folder / "source", name)
        (series,) = choose_series(find_series(folder / "source"))
        result = correct_series(series, folder / "out", NO_METAL)
        assert {s.status for s in result.slices} == {"no metal"}
        normal = np.cross(place.orientation[:3], place.orientation[3:])
        upwards = sorted(range(len(files)), key=lambda k: float(np.dot(place.position(k), normal)))
        written = sorted((folder / "out").glob("*.dcm"))
        assert len(written) == len(files)
        for k, path in zip(upwards, written, strict=True):
            derived = pydicom.dcmread(path)
            assert derived.SourceImageSequence[0].ReferencedSOPInstanceUID.endswith(f".{k + 1}")
            np.testing.assert_array_equal(derived.pixel_array, coding.stored(k))
            assert raw_bytes(path) == raw_bytes(files[k])
            assert len(raw_bytes(path)) > 12
            assert not any(tag.is_private for tag in derived.keys())  # noqa: SIM118
            assert derived.HighBit == derived.BitsStored - 1


@given(pixels(), places(), st.data())
@fast
def test_changed_pixels_are_within_half_a_step_and_all_within_bits_stored(
    coding: Pixels, place: Place, data: st.DataObject
) -> None:
    place = replace(place, z_mm=place.z_mm[:1])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(coding, place, folder / "source")
        (series,) = choose_series(find_series(folder / "source"))
        source = read_slice(series.slices[0])
        np.testing.assert_array_equal(source.stored, coding.stored(0))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        size = data.draw(st.sampled_from([0.1, 30.0, 3000.0, 1e6]))
        changed = rng.random(SIZE) < 0.6
        asked = source.image_hu + np.where(changed, rng.normal(0, size, SIZE), 0).astype(np.float32)
        new = DerivedSeries(uid=new_uid(), description="", method="li", version="1", created=datetime.now(UTC))
        write_dataset(derive(source, asked, series=new), folder / "derived.dcm")
        stored = pydicom.dcmread(folder / "derived.dcm").pixel_array
    np.testing.assert_array_equal(stored, to_stored(asked, source))
    low, high = coding.limits
    assert stored.min() >= low
    assert stored.max() <= high
    kept = source.padding | (asked == source.image_hu)
    np.testing.assert_array_equal(stored[kept], coding.stored(0)[kept])
    ends = sorted((low * coding.slope + coding.intercept, high * coding.slope + coding.intercept))
    wanted = np.clip(asked.astype(float), *ends)
    error = np.abs(stored * coding.slope + coding.intercept - wanted)[~kept]
    assert np.all(error <= abs(coding.slope) / 2 + 1e-6 * np.abs(wanted[~kept]) + 1e-9)


@given(pixels())
@fast
def test_declared_padding_below_tissue_is_padding_and_nothing_of_it_changes(coding: Pixels) -> None:
    low, _ = coding.limits
    coding = replace(coding, padding=(low,), slope=abs(coding.slope), intercept=-1500.0 - low * abs(coding.slope))
    place = Place((1, 0, 0, 0, 1, 0), "HFS", ("1", "1"), (0.0,), (1,), 0)
    with tempfile.TemporaryDirectory() as temporary:
        write(coding, place, Path(temporary))
        (series,) = choose_series(find_series(Path(temporary)))
        source = read_slice(series.slices[0])
    is_padding = coding.stored(0) == low
    assert is_padding[:2, :3].all()
    assert source.padding[is_padding].all()
    np.testing.assert_array_equal(to_stored(source.image_hu + 500, source)[is_padding], low)


@given(places(), st.data())
@fast
def test_the_order_does_not_depend_on_file_names_and_numbers(place: Place, data: st.DataObject) -> None:
    coding = Pixels(1, -1024, 12, False, (), 1)
    other = replace(place, order=data.draw(st.integers(0, 99)), numbers=tuple(reversed(place.numbers)))
    orders = []
    for one in (place, other):
        with tempfile.TemporaryDirectory() as temporary:
            write(coding, one, Path(temporary))
            (series,) = choose_series(find_series(Path(temporary)))
            orders.append([s.sop_uid for s in series.slices])
            along = [s.along_normal_mm for s in series.slices]
            assert along == sorted(along)
    assert orders[0] == orders[1]


@given(st.integers(5, 9), st.data())
@fast
def test_missing_slices_and_second_slices_are_told(count: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(1, count - 2))
    twice = data.draw(st.sampled_from([k for k in range(count) if k != gone]))
    coding = Pixels(1, -1024, 12, False, (), 1)
    z_mm = tuple(2.5 * k for k in range(count) if k != gone)
    even = Place((1, 0, 0, 0, 1, 0), "HFS", ("1", "1"), z_mm, tuple(range(count - 1)), 3)
    with tempfile.TemporaryDirectory() as temporary:
        files = write(coding, even, Path(temporary))
        (series,) = choose_series(find_series(Path(temporary)))
        assert series.warnings == ("missing slices: 1 (spacing 2.50 mm)",)
        again = image(coding, replace(even, z_mm=(2.5 * twice,)), 0)
        again.SOPInstanceUID += ".1"
        save(again, Path(temporary, "zz.dcm"))
        Path(temporary, "same.dcm").write_bytes(files[0].read_bytes())
        found = find_series(Path(temporary))
        assert "slices at the position of another slice: 1" in " ".join(found.series[0].warnings)
        assert len(found.series[0].slices) == count
        (skipped,) = found.skipped
        assert "same image (SOP instance UID)" in skipped.reason


@pytest.mark.parametrize(("bits", "high_bit", "shift"), [(12, 15, 4), (12, 12, 1), (10, 11, 2)])
@pytest.mark.parametrize("signed", [False, True])
def test_pixels_that_are_not_in_the_lowest_bits_are_brought_down(
    tmp_path: Path, bits: int, high_bit: int, shift: int, signed: bool
) -> None:
    """CT has High Bit one below Bits Stored (PS3.3 section C.8.2.1.1); pydicom would read 2^shift times the value."""
    ds = ct_dataset(np.zeros(SIZE), bits_stored=bits, signed=signed)
    values = np.arange(SIZE[0] * SIZE[1], dtype="<u2").reshape(SIZE)
    ds.PixelData, ds.HighBit = (values << shift).tobytes(), high_bit
    save(ds, tmp_path / "a.dcm")
    (series,) = choose_series(find_series(tmp_path))
    np.testing.assert_array_equal(read_slice(series.slices[0]).stored, values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("overlay", [0x1000, 0x8000, 0xF000])
def test_bits_above_bits_stored_are_no_part_of_the_value(tmp_path: Path, signed: bool, overlay: int) -> None:
    """Old scanners kept overlays there (retired, PS3.5 section 8.1.2)."""
    values = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) * 40 - (900 if signed else 0)
    ds = ct_dataset(np.zeros(SIZE), signed=signed)
    ds.PixelData = ((values & 0x0FFF) | overlay).astype("<u2").tobytes()
    save(ds, tmp_path / "source" / "a.dcm")
    (series,) = choose_series(find_series(tmp_path / "source"))
    np.testing.assert_array_equal(read_slice(series.slices[0]).stored, values)
    correct_series(series, tmp_path / "out", NO_METAL)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "out" / "0001.dcm").pixel_array, values)
