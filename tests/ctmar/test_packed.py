import numpy as np
import pytest

from ctmar.packed import PackedMasks


def test_masks_come_back_whatever_their_shape():
    rng = np.random.default_rng(0)
    masks = [rng.random(shape) < p for shape in ((5, 7), (16, 16), (1, 1), (40, 3)) for p in (0, 0.02, 0.5, 1)]
    masks.append(np.zeros((0, 0), bool))
    packed = PackedMasks(masks)
    assert len(packed) == len(masks)
    for k, (mask, back) in enumerate(zip(masks, packed, strict=True)):
        assert back.dtype == bool
        np.testing.assert_array_equal(back, mask)
        assert packed.any(k) == mask.any()
    np.testing.assert_array_equal(packed[-2], masks[-2])
    assert len(packed[1:3]) == 2
    with pytest.raises(IndexError):
        packed[len(masks)]


def test_unpacked_masks_are_copies_and_can_be_replaced():
    packed = PackedMasks([np.eye(4, dtype=bool)])
    packed[0][:] = False
    assert packed[0].sum() == 4
    packed.replace(0, np.ones((4, 4), bool))
    assert packed[0].all()


def test_memory_of_a_thousand_slices():
    """32 kB a slice where everything is set, hardly anything where little is."""
    full, speck = np.ones((512, 512), bool), np.zeros((512, 512), bool)
    speck[100:110, 200:220] = True
    assert PackedMasks([full] * 10).nbytes == 10 * 512 * 512 // 8
    assert PackedMasks([speck] * 10).nbytes == 10 * 25
