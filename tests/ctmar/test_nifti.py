from __future__ import annotations

import gzip
import itertools
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import Series, choose_series, find_series
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.nifti import affine_of, open_volume, write_series_volume, write_volume
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save, write_ct_series

nibabel = pytest.importorskip("nibabel")

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"

VOLUME = np.random.default_rng(1).integers(-900, 1500, (4, 5, 6)).astype(np.int16)
"""(slice, row, column) as the program sees it: upwards, from anterior, from the patient's right."""

STEPS_MM = (2.5, 0.8, 0.7)


def stored(permutation: tuple[int, ...], flips: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """`VOLUME` in another order and direction of axes, and the affine that says where everything is.

    Made from positions alone: the voxel (slice, row, col) lies at x = -0.7 col, y = -0.8 row, z = 2.5 slice.
    """
    data = VOLUME.transpose(permutation)
    affine = np.eye(4)
    for axis, meaning in enumerate(permutation):
        world = 2 - meaning  # slices are along z, rows along y, columns along x
        way = 1 if meaning == 0 else -1
        affine[:3, axis] = 0
        affine[world, axis] = way * STEPS_MM[meaning] * flips[axis]
        if flips[axis] < 0:
            affine[world, 3] += way * STEPS_MM[meaning] * (data.shape[axis] - 1)
    return data[tuple(slice(None, None, flip) for flip in flips)], affine


def write(path: Path, data: np.ndarray, affine: np.ndarray, *, slope: float = 1, inter: float = 0) -> Path:
    image = nibabel.Nifti1Image(np.ascontiguousarray(data), affine)
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


def supine(path: Path, data: np.ndarray = VOLUME, **scaling: float) -> Path:
    return write(path, data[:, ::-1, ::-1].transpose(2, 1, 0), np.diag([0.7, 0.8, 2.5, 1]), **scaling)


class TestRead:
    @pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("flips", list(itertools.product([1, -1], repeat=3)))
    def test_any_stored_orientation(self, tmp_path: Path, permutation: tuple[int, ...], flips: tuple[int, ...]) -> None:
        volume = open_volume(write(tmp_path / "a.nii", *stored(permutation, flips)))
        assert (len(volume), volume.shape) == (4, (4, 5, 6))
        assert volume.pixel_mm == pytest.approx((0.8, 0.7))
        assert volume.along_normal_mm == pytest.approx((0, 2.5, 5, 7.5), abs=1e-5)
        assert volume.warnings == ("pixels are not square",)
        for index, image in enumerate(VOLUME):
            found = volume.read(index)
            np.testing.assert_array_equal(found.image_hu, image)
            assert found.image_hu.dtype == np.float32
            assert not found.padding.any()
            assert found.pixel_mm == volume.pixel_mm

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
    @pytest.mark.parametrize(
        ("kind", "slope", "inter"),
        [("i2", 1, 0), ("i2", 2, -1024), ("u2", 0.5, -1000), ("f4", 1, 0), ("f8", 1, 0), ("i4", 1, 0)],
    )
    def test_types_and_scaling(self, tmp_path: Path, name: str, kind: str, slope: float, inter: float) -> None:
        raw = (VOLUME + 1000).astype(kind)
        volume = open_volume(supine(tmp_path / name, raw, slope=slope, inter=inter))
        got = np.stack([volume.values(k) for k in range(len(volume))])
        np.testing.assert_array_equal(got, (raw * np.float64(slope) + inter).astype(np.float32))

    def test_big_endian(self, tmp_path: Path) -> None:
        image = VOLUME[:, ::-1, ::-1].transpose(2, 1, 0)
        image = nibabel.Nifti1Image(image, np.eye(4), nibabel.Nifti1Header(endianness=">"))
        image.header.set_data_dtype(">i2")
        nibabel.save(image, tmp_path / "a.nii")
        assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
        volume = open_volume(tmp_path / "a.nii")
        np.testing.assert_array_equal(volume.read(1).image_hu, VOLUME[1])
        write_volume(tmp_path / "b.nii", [None] * 4, like=volume)
        assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()

    def test_one_volume_of_four_dimensions_and_a_single_slice(self, tmp_path: Path) -> None:
        data = VOLUME[:, ::-1, ::-1].transpose(2, 1, 0)
        four = open_volume(write(tmp_path / "a.nii", data[..., None], np.eye(4)))
        np.testing.assert_array_equal(four.read(3).image_hu, VOLUME[3])
        flat = open_volume(write(tmp_path / "b.nii", data[..., 1], np.eye(4)))
        assert len(flat) == 1
        np.testing.assert_array_equal(flat.read(0).image_hu, VOLUME[1])

    def test_padding(self, tmp_path: Path) -> None:
        data = np.tile(np.float32(100), (1, 20, 20))
        y, x = np.mgrid[:20, :20] - 9.5
        outside = np.hypot(y, x) > 10
        data[0][outside] = -3024
        data[0, 10, 10] = np.nan
        data[0, 10, 12] = np.inf
        found = open_volume(supine(tmp_path / "a.nii.gz", data)).read(0)
        expected = outside.copy()
        expected[10, [10, 12]] = True
        np.testing.assert_array_equal(found.padding, expected)
        assert set(np.unique(found.image_hu)) == {-1000.0, 100.0}

    def test_units_other_than_mm(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(VOLUME, np.diag([0.0007, 0.0007, 0.002, 1]))
        image.header.set_xyzt_units("meter")
        nibabel.save(image, tmp_path / "a.nii")
        volume = open_volume(tmp_path / "a.nii")
        assert volume.pixel_mm == pytest.approx((0.7, 0.7))
        assert volume.along_normal_mm[1] - volume.along_normal_mm[0] == pytest.approx(2)

    def test_an_index_out_of_range(self, tmp_path: Path) -> None:
        volume = open_volume(supine(tmp_path / "a.nii"))
        for index in (-1, 4):
            with pytest.raises(IndexError):
                volume.read(index)


class TestWarnings:
    def test_oblique(self, tmp_path: Path) -> None:
        angle = np.radians(10)
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag([1.0, 1.0, 2.0])
        volume = open_volume(write(tmp_path / "a.nii", VOLUME, affine))
        (text,) = volume.warnings
        assert text.startswith("axes are up to 10.0 degrees from those of the patient")
        assert np.diff(volume.along_normal_mm) == pytest.approx(2)

    def test_sheared(self, tmp_path: Path) -> None:
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        affine[1, 2] = 2 * np.tan(np.radians(18))
        volume = open_volume(write(tmp_path / "a.nii", VOLUME, affine))
        assert "slices are sheared (gantry tilt)" in volume.warnings
        assert np.diff(volume.along_normal_mm) == pytest.approx(2)

    def test_without_orientation(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(VOLUME, None)
        image.header.set_zooms((1, 1, 2))
        nibabel.save(image, tmp_path / "a.nii")
        assert open_volume(tmp_path / "a.nii").warnings == (
            "no orientation in the header (sform and qform code 0): supine and axial is assumed",
        )


class TestRefused:
    def refused(self, path: Path) -> str:
        with pytest.raises(UnsupportedInputError) as caught:
            open_volume(path)
        return str(caught.value)

    def test_several_volumes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.nii", np.zeros((4, 4, 4, 3), np.int16), np.eye(4))
        assert self.refused(path) == "a.nii: has 4 dimensions with 3 volumes; give one CT volume (3)."

    def test_colours(self, tmp_path: Path) -> None:
        colour = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "a.nii")
        assert "colours or complex" in self.refused(tmp_path / "a.nii")

    def test_no_place_in_space(self, tmp_path: Path) -> None:
        path = supine(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        data[280:328] = struct.pack("<12f", *[0.0] * 12)  # srow
        path.write_bytes(data)
        assert "places no volume in space" in self.refused(path)
        data[280:328] = struct.pack("<12f", *[float("nan")] * 12)
        path.write_bytes(data)
        assert "places no volume in space" in self.refused(path)

    def test_matrices_that_are_no_image(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.nii", np.zeros((1, 9, 9), np.int16), np.eye(4))
        assert "a matrix of 9 x 1 pixels" in self.refused(path)

    def test_missing_damaged_and_truncated(self, tmp_path: Path) -> None:
        with pytest.raises(NoUsableSeriesError):
            open_volume(tmp_path / "none.nii")
        for name in ("a.nii", "a.nii.gz"):
            path = supine(tmp_path / name, np.random.default_rng(0).integers(0, 999, (9, 30, 30)).astype(np.int16))
            whole = path.read_bytes()
            for length in (0, 10, 200, 347, 400, len(whole) // 2, len(whole) - 60):
                path.write_bytes(whole[:length])
                with pytest.raises(UnsupportedInputError):
                    open_volume(path).read(0)

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_promises_that_the_file_cannot_hold(self, tmp_path: Path, name: str) -> None:
        """Refused from the header: nothing of that size is ever allocated."""
        path = supine(tmp_path / name)
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "rb") as stream:
            data = bytearray(stream.read())
        for shape, words in [((512, 512, 3000), "its header promises"), ((32767, 32767, 4), "more than 4 GiB")]:
            data[40:56] = struct.pack("<8h", 3, *shape, 1, 1, 1, 1)
            with opened(path, "wb") as stream:
                stream.write(data)
            assert words in self.refused(path)

    def test_nothing_is_printed_of_odd_headers(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = supine(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        data[254:256] = struct.pack("<h", 77)  # sform_code
        path.write_bytes(data)
        open_volume(path)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("offset", [1e30, -5.0, float("nan")])
    def test_voxels_that_begin_nowhere(self, tmp_path: Path, offset: float) -> None:
        path = supine(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        data[108:112] = struct.pack("<f", offset)
        path.write_bytes(data)
        assert "no readable NIfTI file" in self.refused(path)


class TestWrite:
    @pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
    @pytest.mark.parametrize("name", ["b.nii", "b.nii.gz"])
    def test_orientation_and_header_stay(
        self, tmp_path: Path, permutation: tuple[int, ...], flips: tuple[int, ...], name: str
    ) -> None:
        source = write(tmp_path / "a.nii.gz", *stored(permutation, flips))
        volume = open_volume(source)
        changed = [VOLUME[k].astype(np.float32) for k in range(4)]
        changed[2][3, 4] = 777
        write_volume(tmp_path / name, changed, like=volume)
        before, after = nibabel.load(source), nibabel.load(tmp_path / name)
        expected = np.array(before.dataobj)
        expected[np.unravel_index(np.flatnonzero(expected == VOLUME[2, 3, 4]), expected.shape)] = 777
        np.testing.assert_array_equal(np.asarray(after.dataobj), expected)
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.header == before.header
        assert after.get_data_dtype() == np.int16

    @pytest.mark.parametrize(("kind", "slope", "inter"), [("i2", 2, -1024), ("f4", 1, 0), ("u2", 0.5, -1000)])
    def test_scaling_rounding_and_padding(self, tmp_path: Path, kind: str, slope: float, inter: float) -> None:
        raw = np.full((2, 8, 8), 1500, kind)
        raw[:, 0, :] = 0 if kind == "u2" else -2000
        path = supine(tmp_path / "a.nii", raw, slope=slope, inter=inter)
        volume = open_volume(path)
        images = [volume.read(k).image_hu.copy() for k in range(2)]
        images[0][4:] += 0.7 * slope
        images[0][0, 0] = 5  # in the padding or equal to what was there
        write_volume(tmp_path / "b.nii", [images[0], None], like=volume)
        after = open_volume(tmp_path / "b.nii")
        found = np.stack([after._stored(k) for k in range(2)])
        expected = raw.copy()
        expected[0, 4:] = raw[0, 4:] + (1 if kind != "f4" else np.float32(0.7))
        if kind == "u2":  # -1000 HU in the corner is air, not padding
            expected[0, 0, 0] = (5 + 1000) / 0.5
        np.testing.assert_allclose(found, expected, atol=1e-4 if kind == "f4" else 0)
        assert (after.source.dataobj.slope, after.source.dataobj.inter) == (slope, inter)

    def test_nifti_2_stays_nifti_2(self, tmp_path: Path) -> None:
        data, affine = stored((2, 1, 0), (1, -1, 1))
        nibabel.save(nibabel.Nifti2Image(np.ascontiguousarray(data), affine), tmp_path / "a.nii.gz")
        volume = open_volume(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(volume.read(2).image_hu, VOLUME[2])
        write_volume(tmp_path / "b.nii.gz", [None] * 4, like=volume)
        after = nibabel.load(tmp_path / "b.nii.gz")
        assert isinstance(after, nibabel.Nifti2Image)
        np.testing.assert_array_equal(np.asarray(after.dataobj), data)

    def test_clips_to_the_type(self, tmp_path: Path) -> None:
        volume = open_volume(supine(tmp_path / "a.nii"))
        image = VOLUME[0].astype(np.float32)
        image[1, :2] = [1e6, -1e6]
        write_volume(tmp_path / "b.nii", [image, None, None, None], like=volume)
        assert open_volume(tmp_path / "b.nii").values(0)[1, :2].tolist() == [32767, -32768]

    def test_four_dimensions_stay(self, tmp_path: Path) -> None:
        data = VOLUME[:, ::-1, ::-1].transpose(2, 1, 0)[..., None]
        volume = open_volume(write(tmp_path / "a.nii", data, np.eye(4)))
        write_volume(tmp_path / "b.nii", [None] * 4, like=volume)
        np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "b.nii").dataobj), data)

    def test_nothing_is_left_of_what_fails(self, tmp_path: Path) -> None:
        volume = open_volume(supine(tmp_path / "a.nii"))
        image = np.zeros((5, 6), np.float32)
        for images in ([image] * 3, [image] * 5, [np.zeros((6, 5))] * 4, [image * np.nan] * 4):
            with pytest.raises(ValueError, match=r"zip|finite"):
                write_volume(tmp_path / "b.nii", images, like=volume)
        assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]

    def test_same_input_same_bytes(self, tmp_path: Path) -> None:
        volume = open_volume(supine(tmp_path / "a.nii"))
        for name in ("b.nii.gz", "c.nii.gz"):
            write_volume(tmp_path / name, [None] * 4, like=volume)
        assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def only(path: Path) -> Series:
    (series,) = choose_series(find_series(path))
    return series


def images_of(series: Series) -> list[np.ndarray]:
    return [read_slice(file).image_hu for file in series.slices]


def tilted(folder: Path, *, tilt_deg: float = 15.0) -> Series:
    """Slices 3 mm apart along the table (z), in planes turned about x."""
    tilt = np.radians(tilt_deg)
    for k, image in enumerate(ramp_hu(4)):
        ds = ct_dataset(image, z_mm=3.0 * k, number=k + 1)
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(tilt), 6), round(-np.sin(tilt), 6)]
        ds.GantryDetectorTilt = tilt_deg
        save(ds, folder / f"{k}.dcm")
    return only(folder)


class TestOfDicom:
    def test_supine_axial(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path, ramp_hu(3)[:, :, :12], spacing_mm=2.5, pixel_mm=(0.8, 0.7))
        expected = np.array([[-0.7, 0, 0, 0.7 * 6], [0, -0.8, 0, 0.8 * 8], [0, 0, 2.5, 0], [0, 0, 0, 1]])
        np.testing.assert_allclose(affine_of(only(tmp_path)), expected, atol=1e-12)

    @pytest.mark.parametrize(
        "orientation", [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [0, 1, 0, -1, 0, 0], [-1, 0, 0, 0, 1, 0]]
    )
    def test_every_voxel_is_where_dicom_says(self, tmp_path: Path, orientation: list[int]) -> None:
        for k, image in enumerate(ramp_hu(3)):
            ds = ct_dataset(image, z_mm=2.0 * k, number=k + 1, pixel_mm=(0.5, 0.9))
            ds.ImageOrientationPatient = orientation
            save(ds, tmp_path / f"{k}.dcm")
        series = only(tmp_path)
        affine = affine_of(series)
        for k, file in enumerate(series.slices):
            row, col = 3, 11
            # PS3.3 equation C.7.6.2.1-1
            left, posterior, up = (
                np.array(file.position_mm)
                + np.array(orientation[:3]) * 0.9 * col
                + np.array(orientation[3:]) * 0.5 * row
            )
            np.testing.assert_allclose((affine @ [col, row, k, 1])[:3], [-left, -posterior, up], atol=1e-9)

    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    def test_values_come_back_through_open_volume(self, tmp_path: Path, dtype: str) -> None:
        write_ct_series(tmp_path / "a", ramp_hu(3), spacing_mm=2.5)
        series = only(tmp_path / "a")
        write_series_volume(tmp_path / "b.nii.gz", images_of(series), series=series, dtype=dtype)
        volume = open_volume(tmp_path / "b.nii.gz")
        for k, image in enumerate(ramp_hu(3)):
            np.testing.assert_array_equal(volume.read(k).image_hu, image)
        assert volume.along_normal_mm == pytest.approx((0, 2.5, 5), abs=1e-5)
        assert nibabel.load(tmp_path / "b.nii.gz").get_data_dtype() == dtype

    def test_tilt_is_a_shear_that_no_quaternion_straightens(self, tmp_path: Path) -> None:
        series = tilted(tmp_path / "a")
        affine = affine_of(series)
        np.testing.assert_allclose(affine[:3, 2], [0, 0, 3], atol=1e-9)
        assert affine[2, 1] == pytest.approx(-np.sin(np.radians(15)), abs=1e-5)
        write_series_volume(tmp_path / "b.nii", images_of(series), series=series)
        header = nibabel.load(tmp_path / "b.nii").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
        np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii").affine, affine, atol=1e-5)
        volume = open_volume(tmp_path / "b.nii")
        assert "slices are sheared (gantry tilt)" in volume.warnings
        np.testing.assert_array_equal(volume.read(2).image_hu, ramp_hu(4)[2])
        assert np.diff(volume.along_normal_mm) == pytest.approx(3 * np.cos(np.radians(15)), abs=1e-5)

    def test_one_slice(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path, ramp_hu(1))
        np.testing.assert_allclose(affine_of(only(tmp_path))[:3, 2], [0, 0, 1])

    @pytest.mark.parametrize("z_mm", [[0, 2, 4, 8], [0, 2, 4.5, 6], [0, 0, 2, 4], [1, 1, 1, 1]])
    def test_uneven_spacing_is_refused(self, tmp_path: Path, z_mm: list[float]) -> None:
        write_ct_series(tmp_path, ramp_hu(4), z_mm=z_mm)
        with pytest.raises(UnsupportedInputError, match=r"even spacing.*write DICOM"):
            affine_of(only(tmp_path))

    @pytest.mark.parametrize(
        ("keyword", "value", "why"),
        [
            ("PixelSpacing", [1.1, 1.1], "pixel spacing differs"),
            ("ImageOrientationPatient", [0, 1, 0, -1, 0, 0], "orientation or matrix differs"),
        ],
    )
    def test_differing_slices_are_refused(self, tmp_path: Path, keyword: str, value: list[float], why: str) -> None:
        for k, image in enumerate(ramp_hu(3)):
            ds = ct_dataset(image, z_mm=2.0 * k, number=k + 1)
            if k == 1:
                setattr(ds, keyword, value)
            save(ds, tmp_path / f"{k}.dcm")
        with pytest.raises(UnsupportedInputError, match=why):
            affine_of(only(tmp_path))


class TestOthersAgree:
    @pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
    @pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), (0.8, 0.7)])
    def test_dcm2niix(self, tmp_path: Path, pixel_mm: tuple[float, float]) -> None:
        """The same values at the same places; dcm2niix turns the rows round."""
        write_ct_series(tmp_path / "dicom", ramp_hu(5), spacing_mm=2.5, pixel_mm=pixel_mm)
        subprocess.run(
            ["dcm2niix", "-b", "n", "-f", "theirs", "-o", tmp_path, tmp_path / "dicom"], check=True, capture_output=True
        )
        series = only(tmp_path / "dicom")
        write_series_volume(tmp_path / "ours.nii", images_of(series), series=series, dtype="int16")
        ours, theirs = open_volume(tmp_path / "ours.nii"), open_volume(tmp_path / "theirs.nii")
        for k in range(5):
            np.testing.assert_array_equal(ours.read(k).image_hu, theirs.read(k).image_hu)
        assert ours.along_normal_mm == pytest.approx(theirs.along_normal_mm, abs=1e-4)
        assert ours.pixel_mm == pytest.approx(theirs.pixel_mm)
        mine, other = (nibabel.as_closest_canonical(nibabel.load(v.path)).affine for v in (ours, theirs))
        np.testing.assert_allclose(mine, other, atol=1e-4)

    def test_simpleitk(self, tmp_path: Path) -> None:
        """Reads the DICOM series and our NIfTI of it as the same image in the same place."""
        sitk = pytest.importorskip("SimpleITK")
        paths = write_ct_series(tmp_path / "dicom", ramp_hu(5), spacing_mm=2.5, pixel_mm=(0.8, 0.7))
        series = only(tmp_path / "dicom")
        write_series_volume(tmp_path / "ours.nii.gz", images_of(series), series=series, dtype="int16")
        theirs, ours = sitk.ReadImage([str(p) for p in paths]), sitk.ReadImage(str(tmp_path / "ours.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
        for what in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(ours, what)(), getattr(theirs, what)(), atol=1e-4)
