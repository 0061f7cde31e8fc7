import numpy as np
import pytest
from PIL import Image

from ctmar.errors import UnsupportedInputError, UsageError
from ctmar.masks import read_mask, read_nifti_mask, split_choice

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


# --- on the grid of a NIfTI image -----------------------------------------------------------------

IMAGE = (7, 5, 3)


def affine_of(turn_deg=0.0):
    angle = np.radians(turn_deg)
    affine = np.diag([-0.8, -0.6, 2.0, 1.0])
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = [10, -20, 30]
    return turn @ affine


def save_nifti(path, voxels, affine):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine), path)
    return path


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
def test_nifti_in_any_orientation(tmp_path, axes, flips):
    """The image may be turned and oblique: only that both grids are the same counts."""
    affine = affine_of(12)
    metal = np.random.default_rng(0).random(IMAGE) < 0.3
    to_image = np.zeros((4, 4))  # mask voxel to image voxel
    to_image[3, 3] = 1
    for k, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        to_image[axis, k] = -1 if flip else 1
        to_image[axis, 3] = IMAGE[axis] - 1 if flip else 0
    stored = metal.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    path = save_nifti(tmp_path / "m.nii.gz", stored.astype(np.float32), affine @ to_image)
    np.testing.assert_array_equal(read_nifti_mask(path, affine, IMAGE), metal)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a + np.array([[0, 0, 0, 0.4], [0] * 4, [0] * 4, [0] * 4]), r"shifted by 0\.50 voxels"),
        (lambda a: a @ np.diag([1.1, 1, 1, 1]), "of another size"),
        (lambda a: affine_of(8), "rotated or sheared"),
        (lambda a: affine_of(45), "rotated"),
    ],
)
def test_nifti_on_another_grid(tmp_path, change, says):
    path = save_nifti(tmp_path / "m.nii", np.ones(IMAGE, np.uint8), change(affine_of()))
    with pytest.raises(UsageError, match=says):
        read_nifti_mask(path, affine_of(), IMAGE)


def test_nifti_of_another_size_or_none(tmp_path):
    path = save_nifti(tmp_path / "m.nii", np.ones(IMAGE, np.uint8), affine_of())
    with pytest.raises(UsageError, match=r"7 x 5 x 3 voxels.*image 7 x 5 x 4"):
        read_nifti_mask(path, affine_of(), (7, 5, 4))
    with pytest.raises(UsageError, match="no such"):
        read_nifti_mask(tmp_path / "none.nii", affine_of(), IMAGE)
    path = save_nifti(tmp_path / "four.nii", np.ones((*IMAGE, 2), np.uint8), affine_of())
    with pytest.raises(UnsupportedInputError, match="three axes"):
        read_nifti_mask(path, affine_of(), IMAGE)


def test_nifti_that_promises_too_much(tmp_path):
    """Its header claims 30,000 voxels along each axis."""
    path = save_nifti(tmp_path / "m.nii", np.ones(IMAGE, np.uint8), affine_of())
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(UnsupportedInputError, match="million pixels"):
        read_nifti_mask(path, affine_of(), IMAGE)


def test_choice_behind_a_colon(tmp_path):
    (tmp_path / "a.dcm").touch()
    (tmp_path / "b:c.dcm").touch()
    assert split_choice(f"{tmp_path}/a.dcm:Left hip") == (tmp_path / "a.dcm", "Left hip")
    assert split_choice(f"{tmp_path}/a.dcm") == (tmp_path / "a.dcm", None)
    assert split_choice(f"{tmp_path}/b:c.dcm") == (tmp_path / "b:c.dcm", None)
    assert split_choice("none.dcm:x")[1] is None
