import numpy as np
import pytest
from PIL import Image

from ctmar.errors import UnsupportedInputError, UsageError
from ctmar.masks import read_mask

SHAPE = (3, 5, 7)


@pytest.fixture
def mask():
    return np.random.default_rng(0).random(SHAPE) < 0.3


def test_npy(tmp_path, mask):
    for values in (mask, mask.astype(np.uint8) * 255, mask * -0.5):
        np.save(tmp_path / "mask.npy", values)
        read = read_mask(tmp_path / "mask.npy", SHAPE)
        assert read.dtype == bool
        np.testing.assert_array_equal(read, mask)


def test_one_slice_may_be_flat(tmp_path, mask):
    np.save(tmp_path / "mask.npy", mask[0])
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.npy", (1, 5, 7)), mask[:1])


def test_png(tmp_path, mask):
    Image.fromarray(mask[0].astype(np.uint8) * 255).save(tmp_path / "MASK.PNG")
    np.testing.assert_array_equal(read_mask(tmp_path / "MASK.PNG", (1, 5, 7)), mask[:1])


def test_nifti_is_turned_from_its_own_axes(tmp_path, mask):
    """Voxel (i, j, k) is column i, row j and slice k of axial DICOM images: to the left, to the back, upwards."""
    nibabel = pytest.importorskip("nibabel")
    voxels = mask.astype(np.uint8).transpose(2, 1, 0)
    # NIfTI's x is to the right and y to the front
    as_dicom = np.diag([-1.0, -1.0, 2.0, 1.0])
    for name, data, affine in (
        ("lps.nii", voxels, as_dicom),
        ("ras.nii.gz", voxels[::-1, ::-1], np.diag([1.0, 1.0, 2.0, 1.0])),
        ("down.nii", voxels[:, :, ::-1], np.diag([-1.0, -1.0, -2.0, 1.0])),
        ("swapped.nii", voxels.transpose(1, 0, 2), as_dicom[:, [1, 0, 2, 3]]),
    ):
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(data), affine), tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name, SHAPE), mask, err_msg=name)


def test_wrong_shape(tmp_path, mask):
    np.save(tmp_path / "mask.npy", mask)
    with pytest.raises(UsageError, match=r"\(3, 5, 7\).*\(3, 7, 5\)"):
        read_mask(tmp_path / "mask.npy", (3, 7, 5))


def test_missing_or_of_another_kind(tmp_path):
    with pytest.raises(UsageError, match="no such mask"):
        read_mask(tmp_path / "mask.npy", SHAPE)
    (tmp_path / "mask.txt").write_text("1 0 1")
    with pytest.raises(UsageError, match=r"\.npy"):
        read_mask(tmp_path / "mask.txt", SHAPE)


@pytest.mark.parametrize("name", ["mask.npy", "mask.png", "mask.nii", "mask.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"no mask at all"])
def test_damaged(tmp_path, name, content):
    if ".nii" in name:
        pytest.importorskip("nibabel")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedInputError, match=name):
        read_mask(tmp_path / name, SHAPE)


@pytest.mark.parametrize("name", ["mask.npy", "mask.nii", "mask.nii.gz", "mask.png"])
def test_truncated(tmp_path, name):
    path = tmp_path / name
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    if ".nii" in name:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    elif name.endswith(".png"):
        Image.fromarray(values[..., 0]).save(path)
    else:
        np.save(path, values)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnsupportedInputError, match=name):
        read_mask(path, (3, 64, 64))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedInputError, match="no readable mask"):
        read_mask(tmp_path / "mask.npy", SHAPE)
