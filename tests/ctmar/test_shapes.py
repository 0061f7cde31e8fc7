from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ctmar.errors import CtmarError, UnsupportedInputError, UsageError
from ctmar.shapes import read_shapes
from data_sim.implants import coverage, fine_masks
from data_sim.implants.own import Shape

DATA = Path(__file__).parents[3] / "shared" / "data" / "implants"


@pytest.fixture
def mask():
    """Two slices, an L and a bar; the third has no metal."""
    values = np.zeros((3, 20, 30), bool)
    values[0, 3:15, 5:9] = values[0, 11:15, 5:20] = True
    values[1, 10:12, 2:28] = True
    return values


def pixels(shape: Shape) -> np.ndarray:
    """The shape on its own grid again."""
    fine, masks = fine_masks(shape.of("ti"), shape.grid, 8)
    return coverage(masks, fine, shape.grid) >= 0.5


def assert_is(shape: Shape, plane: np.ndarray, pixel_mm: float) -> None:
    assert shape.grid.shape == plane.shape
    assert shape.grid.pixel_mm == pytest.approx(pixel_mm)
    assert (pixels(shape) != plane).sum() <= 4  # corners


def test_npy_and_png_with_a_pixel_size_that_is_given(tmp_path, mask):
    np.save(tmp_path / "stack.npy", mask)
    Image.fromarray(mask[0].astype(np.uint8) * 255).save(tmp_path / "one.png")
    shapes = read_shapes([f"{tmp_path}/stack.npy:0.7", f"{tmp_path}/one.png:1.25"])
    assert len(shapes) == 3
    for shape, plane, pixel_mm in zip(shapes, (mask[0], mask[1], mask[0]), (0.7, 0.7, 1.25), strict=True):
        assert_is(shape, plane, pixel_mm)


def test_nifti_knows_its_pixel_size(tmp_path, mask):
    nibabel = pytest.importorskip("nibabel")
    voxels = mask.astype(np.uint8).transpose(2, 1, 0)  # as DICOM has them: x to the left, y to the back
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-0.8, -0.8, 2.0, 1.0])), tmp_path / "metal.nii.gz")
    shapes = read_shapes([str(tmp_path / "metal.nii.gz")])
    assert len(shapes) == 2
    assert_is(shapes[0], mask[0], 0.8)
    assert_is(read_shapes([f"{tmp_path}/metal.nii.gz:0.5"])[1], mask[1], 0.5)


def test_mat_in_centimetres_also_within_a_struct(tmp_path, mask):
    plane = mask[0].astype(np.uint8)
    savemat(tmp_path / "a.mat", {"sample": {"image": np.zeros((20, 30)), "metal": plane, "pixel_size": 0.07}})
    savemat(tmp_path / "b.mat", {"metal": np.moveaxis(mask, 0, 2).astype(np.uint8), "pixel_mm": 0.7})
    savemat(tmp_path / "c.mat", {"drawn": plane})
    for name, count in (("a.mat", 1), ("b.mat", 2), ("c.mat:0.7", 1)):
        shapes = read_shapes([str(tmp_path / name)])
        assert len(shapes) == count
        assert_is(shapes[0], mask[0], 0.7)


def test_dicom_segmentation_that_ctmar_wrote(tmp_path, mask):
    pytest.importorskip("highdicom")
    from ctmar.dicom.segment import metal_segmentation
    from ctmar.dicom.synthetic import write_ct_series

    write_ct_series(tmp_path / "ct", np.zeros(mask.shape, np.float32), pixel_mm=0.7, spacing_mm=3.0)
    import pydicom

    series = [pydicom.dcmread(file) for file in sorted((tmp_path / "ct").iterdir())]
    metal_segmentation(series, mask, version="0").save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    shapes = read_shapes([str(tmp_path / "seg.dcm")])
    assert len(shapes) == 2
    found = sorted((pixels(shape).sum() for shape in shapes), reverse=True)
    assert found == pytest.approx([mask[0].sum(), mask[1].sum()], abs=4)
    assert shapes[0].grid.pixel_mm == pytest.approx(0.7)
    with pytest.raises(UsageError, match="no DICOM segmentation"):
        read_shapes([str(next((tmp_path / "ct").iterdir()))])


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared implant labels are not here")
@pytest.mark.parametrize(("name", "count", "pixel_mm"), [("sample_1", 852, 0.703125), ("sample_2", 1055, 0.41)])
def test_labels_of_real_implants(name, count, pixel_mm):
    (shape,) = read_shapes([str(DATA / f"{name}.mat")])
    assert shape.grid.shape == (512, 512)
    assert shape.grid.pixel_mm == pytest.approx(pixel_mm)
    assert pixels(shape).sum() == pytest.approx(count, rel=0.03)


# --- what is refused ------------------------------------------------------------------------------


def test_missing_unknown_or_without_a_size(tmp_path, mask):
    np.save(tmp_path / "stack.npy", mask)
    (tmp_path / "a.txt").write_text("1 0 1")
    for name, message in (
        ("none.npy:0.7", "no such mask"),
        ("none.mat", "no such mask"),
        ("a.txt", "a shape is"),
        ("stack.npy", "says no pixel size"),
        ("stack.npy:0", "give 0.02 to 5 mm"),
        ("stack.npy:nan", "give 0.02 to 5 mm"),
        ("stack.npy:-3", "give 0.02 to 5 mm"),
    ):
        with pytest.raises(UsageError, match=message):
            read_shapes([str(tmp_path / name)])


def test_no_metal_or_noise_or_pixels_that_are_not_square(tmp_path):
    np.save(tmp_path / "empty.npy", np.zeros((20, 20)))
    with pytest.raises(UsageError, match="no metal"):
        read_shapes([f"{tmp_path}/empty.npy:0.7"])
    checks = np.zeros((80, 80), bool)
    checks[::3, ::3] = True
    np.save(tmp_path / "specks.npy", checks)
    with pytest.raises(UnsupportedInputError, match="clean the mask"):
        read_shapes([f"{tmp_path}/specks.npy:0.7"])
    savemat(tmp_path / "a.mat", {"metal": np.ones((5, 5), np.uint8), "pixel_mm": [0.7, 0.9]})
    with pytest.raises(UnsupportedInputError, match="not square"):
        read_shapes([str(tmp_path / "a.mat")])
    savemat(tmp_path / "b.mat", {"one": np.ones((5, 5)), "two": np.ones((5, 5))})
    with pytest.raises(UsageError, match="metal or mask"):
        read_shapes([str(tmp_path / "b.mat")])
    savemat(tmp_path / "c.mat", {"metal": np.ones((5, 5)), "pixel_size": 1e9})
    with pytest.raises(UnsupportedInputError, match="give their size"):
        read_shapes([str(tmp_path / "c.mat")])


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.nii", "a.nii.gz", "a.mat", "a.dcm"])
@pytest.mark.parametrize("content", [b"", b"no mask at all", b"MATLAB 5.0 MAT-file" + bytes(200), bytes(4000)])
def test_damaged_files_end_in_a_sentence(tmp_path, name, content):
    if ".nii" in name:
        pytest.importorskip("nibabel")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CtmarError, match=name):
        read_shapes([f"{tmp_path}/{name}"])


def test_truncated_mat(tmp_path, mask):
    savemat(tmp_path / "a.mat", {"metal": np.random.default_rng(0).random((200, 200)), "pixel_mm": 1.0})
    whole = (tmp_path / "a.mat").read_bytes()
    for length in (len(whole) // 2, 200, 130):
        (tmp_path / "a.mat").write_bytes(whole[:length])
        with pytest.raises(CtmarError, match=r"a\.mat"):
            read_shapes([str(tmp_path / "a.mat")])


def test_matlab_7_3(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["metal"] = np.ones((5, 5))
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with (tmp_path / "a.mat").open("r+b") as raw:
        raw.write(text)
    with pytest.raises(UnsupportedInputError, match="save it with -v7"):
        read_shapes([str(tmp_path / "a.mat")])


@pytest.mark.parametrize("name", ["a.npy", "a.mat", "a.nii.gz"])
def test_arrays_that_would_fill_the_memory(tmp_path, monkeypatch, name):
    """Compressed files may promise any size: it is looked at before anything is read."""
    mask = np.ones((200, 200), np.uint8)
    if name == "a.npy":
        np.save(tmp_path / name, mask)
    elif name == "a.mat":
        savemat(tmp_path / name, {"mask": mask}, do_compression=True)
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(mask[..., None], np.eye(4)), tmp_path / name)
    assert read_shapes([f"{tmp_path}/{name}:1"])
    monkeypatch.setattr("ctmar.masks.MOST_PIXELS", 1000)
    with pytest.raises(UnsupportedInputError, match="million pixels"):
        read_shapes([f"{tmp_path}/{name}:1"])


def test_a_sieve_is_refused(tmp_path):
    mask = np.ones((60, 60), bool)
    mask[1::2, 1::2] = False
    np.save(tmp_path / "a.npy", mask)
    with pytest.raises(UnsupportedInputError, match="parts or holes"):
        read_shapes([f"{tmp_path}/a.npy:1"])


def test_a_picture_that_would_fill_the_memory(tmp_path, monkeypatch):
    Image.fromarray(np.ones((200, 200), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnsupportedInputError, match=r"a\.png"):
        read_shapes([f"{tmp_path}/a.png:1"])
