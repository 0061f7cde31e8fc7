"""Encodings, and what files keep in bits that hold no pixel."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless, RLELossless

from ctmar.dicom.derived import DerivedSeries, derive, new_uid, write_dataset
from ctmar.dicom.pixels import Slice, read_slice
from ctmar.dicom.series import choose_series, find_series
from ctmar.errors import UnsupportedInputError
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save

HTJ2K = (
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAH4AAf+TwAAmP/YFB3QAAMAAEsAAEwAiAYd0AEbyA4d0AMAAE0AAE4AQyAECdAAe"
    "6ZEAw1QAwAAVEAAFYIZhGKpwgnUAfvTDDz/+wFKB7LYAwAArIAAWkO7u7u7nwKenp8J4AP79/f39/f39/Yxge/Yxgey6AP/Z"
)
"""16 x 16 words, 16 k + 5, as OpenJPH 0.26 encodes them in High-Throughput JPEG 2000, lossless."""

NOW = datetime(2025, 6, 7, tzinfo=UTC)


def load(path: Path) -> Slice:
    (series,) = choose_series(find_series(path))
    return read_slice(series.slices[0])


def with_words(words: np.ndarray, *, bits: int, signed: bool, **attributes: object) -> Dataset:
    """An image whose 16-bit words are as given; HU are stored values - 1024."""
    ds = ct_dataset(np.zeros(words.shape), bits_stored=bits, signed=signed)
    ds.PixelData = words.astype("<u2").tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def words(values: np.ndarray, bits: int) -> np.ndarray:
    """Values as words of which only the lower bits are used."""
    return np.asarray(values) & ((1 << bits) - 1)


class TestBits:
    def test_unsigned_12_bits_under_an_overlay(self, tmp_path: Path) -> None:
        values = np.arange(256).reshape(16, 16) * 16
        overlay = np.where(np.arange(256).reshape(16, 16) % 3 == 0, 0x1000, 0)
        ds = with_words(values | overlay, bits=12, signed=False)
        ds.add_new(0x60000010, "US", 16)
        ds.add_new(0x60000011, "US", 16)
        ds.add_new(0x60000040, "CS", "G")
        ds.add_new(0x60000050, "SS", [1, 1])
        ds.add_new(0x60000100, "US", 16)
        ds.add_new(0x60000102, "US", 12)
        image = load(save(ds, tmp_path / "a.dcm"))
        np.testing.assert_array_equal(image.stored, values)
        np.testing.assert_array_equal(image.image_hu, values - 1024)
        new = DerivedSeries(uid=new_uid(), description="x", method="li", version="1", created=NOW)
        write_dataset(derive(image, image.image_hu - 3, series=new), tmp_path / "b.dcm")
        derived = pydicom.dcmread(tmp_path / "b.dcm")
        np.testing.assert_array_equal(derived.pixel_array[1:], values[1:] - 3)
        assert 0x60000102 not in derived

    @pytest.mark.parametrize("extended", [True, False])
    def test_signed_12_of_16_bits_with_and_without_their_sign(self, tmp_path: Path, extended: bool) -> None:
        values = np.arange(-128, 128).reshape(16, 16) * 16
        ds = with_words(values if extended else words(values, 12), bits=12, signed=True, RescaleIntercept=0)
        image = load(save(ds, tmp_path / "a.dcm"))
        np.testing.assert_array_equal(image.stored, values)
        assert image.stored.dtype == np.int16

    def test_declared_padding_outside_of_the_bits_is_kept(self, tmp_path: Path) -> None:
        values = np.full((16, 16), 1000)
        values[:4] = -32768
        ds = with_words(values, bits=12, signed=True)
        ds.add_new("PixelPaddingValue", "SS", -32768)
        image = load(save(ds, tmp_path / "a.dcm"))
        np.testing.assert_array_equal(image.padding, values < 0)
        np.testing.assert_array_equal(image.stored, values)
        new = DerivedSeries(uid=new_uid(), description="x", method="li", version="1", created=NOW)
        write_dataset(derive(image, image.image_hu + 1, series=new), tmp_path / "b.dcm")
        written = np.frombuffer(pydicom.dcmread(tmp_path / "b.dcm").PixelData, "<i2").reshape(16, 16)
        np.testing.assert_array_equal(written, np.where(values < 0, values, 1001))

    def test_values_in_the_upper_bits(self, tmp_path: Path) -> None:
        values = np.arange(256).reshape(16, 16) * 16 + 7
        ds = with_words(values << 4, bits=12, signed=False, HighBit=15)
        np.testing.assert_array_equal(load(save(ds, tmp_path / "a.dcm")).stored, values)

    def test_a_high_bit_that_is_wrong(self, tmp_path: Path) -> None:
        values = np.arange(256).reshape(16, 16) * 16 + 7
        ds = with_words(values, bits=12, signed=False, HighBit=15)
        np.testing.assert_array_equal(load(save(ds, tmp_path / "a.dcm")).stored, values)

    def test_a_high_bit_that_fits_nothing(self, tmp_path: Path) -> None:
        ds = with_words(np.arange(256).reshape(16, 16) * 256 + 7, bits=12, signed=False, HighBit=15)
        with pytest.raises(UnsupportedInputError, match=r"a\.dcm: its High Bit .* fit neither"):
            load(save(ds, tmp_path / "a.dcm"))

    def test_extended_hounsfield_units(self, tmp_path: Path) -> None:
        hu = np.linspace(-1024, 22_000, 256).reshape(16, 16).round()
        ds = ct_dataset(hu, signed=True, bits_stored=16)
        np.testing.assert_array_equal(load(save(ds, tmp_path / "a.dcm")).image_hu, hu)

    @pytest.mark.parametrize("bits", [8, 16, 32])
    def test_words_of_other_sizes(self, tmp_path: Path, bits: int) -> None:
        values = np.arange(256).reshape(16, 16) % 250
        ds = ct_dataset(np.zeros((16, 16)))
        ds.BitsAllocated = ds.BitsStored = bits
        ds.HighBit = bits - 1
        ds.PixelData = values.astype(f"<u{bits // 8}").tobytes()
        image = load(save(ds, tmp_path / "a.dcm"))
        np.testing.assert_array_equal(image.stored, values)
        assert image.stored.dtype.itemsize == bits // 8

    @pytest.mark.parametrize(
        ("attributes", "why"),
        [
            ({"BitsAllocated": 12}, "12 bits stored in 12"),
            ({"BitsStored": 17}, "17 bits stored in 16"),
            ({"BitsStored": None}, "no number of bits"),
            ({"BitsAllocated": 64}, "12 bits stored in 64"),
        ],
    )
    def test_other_numbers_of_bits_are_refused(self, tmp_path: Path, attributes: dict[str, object], why: str) -> None:
        ds = with_words(np.zeros((16, 16)), bits=12, signed=False, **attributes)
        with pytest.raises(UnsupportedInputError, match=f"{why} .*convert them to 16-bit integers"):
            load(save(ds, tmp_path / "a.dcm"))


class TestRescale:
    @pytest.mark.parametrize("rescale_type", [None, "", "HU", "US", "HU "])
    def test_rescale_type_can_be_missing(self, tmp_path: Path, rescale_type: str | None) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        if rescale_type is None:
            del ds.RescaleType
        else:
            ds.RescaleType = rescale_type
        np.testing.assert_array_equal(load(save(ds, tmp_path / "a.dcm")).image_hu, ramp_hu(1)[0])

    @pytest.mark.parametrize("slope", [0.5, 2.0, 1.5])
    def test_slope_is_not_1(self, tmp_path: Path, slope: float) -> None:
        hu = np.arange(256).reshape(16, 16) * slope - 1000
        ds = ct_dataset(hu, slope=slope, intercept=-1000)
        np.testing.assert_array_equal(load(save(ds, tmp_path / "a.dcm")).image_hu, hu)

    def test_intercept_0(self, tmp_path: Path) -> None:
        ds = ct_dataset(ramp_hu(1)[0], signed=True, bits_stored=16, intercept=0)
        image = load(save(ds, tmp_path / "a.dcm"))
        np.testing.assert_array_equal(image.image_hu, image.stored)


class TestRefused:
    @pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
    def test_floating_point_pixels(self, tmp_path: Path, keyword: str) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        del ds.PixelData
        setattr(ds, keyword, np.zeros(256, "<f8" if "Double" in keyword else "<f4").tobytes())
        with pytest.raises(UnsupportedInputError, match=r"floating-point numbers.*convert them to 16-bit"):
            load(save(ds, tmp_path / "a.dcm"))

    @pytest.mark.parametrize(
        ("uid", "name"),
        [
            ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless (1.2.840.10008.1.2.4.110)"),
            ("1.2.840.10008.1.2.4.52", "JPEG Extended (Process 3 and 5) (1.2.840.10008.1.2.4.52)"),
            ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1 (1.2.840.10008.1.2.4.102)"),
            ("1.2.3.4", "1.2.3.4"),
        ],
    )
    def test_no_decoder_exists(self, tmp_path: Path, uid: str, name: str) -> None:
        path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm")
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = UID(uid)
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 not decoded at all"])
        ds["PixelData"].is_undefined_length = True
        with pydicom.config.disable_value_validation():
            pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=True, force_encoding=True)
        with pytest.raises(UnsupportedInputError) as caught:
            load(path)
        assert f"transfer syntax {name} cannot be decoded: neither pydicom nor pylibjpeg" in str(caught.value)

    def test_the_missing_package_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 no image here."])
        ds["PixelData"].is_undefined_length = True
        path = save(ds, tmp_path / "a.dcm", syntax=JPEG2000Lossless)
        decoder = get_decoder(JPEG2000Lossless)
        monkeypatch.setattr(decoder, "_available", {})
        monkeypatch.setattr(decoder, "_unavailable", {"gdcm": ("gdcm>=3",), "pylibjpeg": ("pylibjpeg", "openjpeg")})
        with pytest.raises(UnsupportedInputError) as caught:
            load(path)
        assert str(caught.value).endswith(
            "a.dcm: transfer syntax JPEG 2000 Image Compression (Lossless Only) (1.2.840.10008.1.2.4.90) needs "
            "pylibjpeg[libjpeg,openjpeg,rle]."
        )

    def test_damaged_rle(self, tmp_path: Path) -> None:
        """Another number of runs than pixels, or anything else: refused or decoded, never a panic of a decoder."""
        path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm", syntax=RLELossless)
        whole = path.read_bytes()
        start = whole.index(b"\xfe\xff\x00\xe0", whole.index(b"\xe0\x7f\x10\x00")) + 8
        random, refused = np.random.default_rng(0), 0
        for _ in range(150):
            data = bytearray(whole)
            for at in random.integers(start, len(data), 3):
                data[at] = random.integers(256)
            path.write_bytes(data)
            try:
                load(path)
            except UnsupportedInputError:
                refused += 1
        assert refused > 20

    def test_a_single_image_larger_than_any(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm")
        monkeypatch.setattr("ctmar.dicom.pixels.MAX_IMAGE_BYTES", 1000)
        with pytest.raises(UnsupportedInputError, match="larger than"):
            load(path)


class TestEncodedByOthers:
    """JPEG 2000 and JPEG-LS written by pydicom's encoders, signed and unsigned, of 12 and of 16 bits."""

    @pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless, UID("1.2.840.10008.1.2.4.80")])
    @pytest.mark.parametrize(("signed", "bits"), [(False, 12), (True, 12), (True, 16), (False, 16)])
    def test_lossless(self, tmp_path: Path, syntax: UID, signed: bool, bits: int) -> None:
        hu = ramp_hu(1, size=64)[0] % 3500 - 1000
        ds = ct_dataset(hu, signed=signed, bits_stored=bits)
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        expected = ds.pixel_array
        try:
            ds.compress(syntax, generate_instance_uid=False)
        except (NotImplementedError, RuntimeError) as error:
            pytest.skip(f"no encoder here: {error}")
        pydicom.dcmwrite(tmp_path / "a.dcm", ds, enforce_file_format=True)
        image = load(tmp_path / "a.dcm")
        np.testing.assert_array_equal(image.stored, expected)
        assert image.stored.dtype == expected.dtype

    def test_high_throughput_jpeg_2000(self, tmp_path: Path) -> None:
        ds = ct_dataset(np.zeros((16, 16)))
        ds.PixelData = pydicom.encaps.encapsulate([base64.b64decode(HTJ2K)])
        ds["PixelData"].is_undefined_length = True
        image = load(save(ds, tmp_path / "a.dcm", syntax=HTJ2KLossless))
        np.testing.assert_array_equal(image.stored, 16 * np.arange(256).reshape(16, 16) + 5)
