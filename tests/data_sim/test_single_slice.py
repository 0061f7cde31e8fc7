"""The virtual scanner in one call gives what its parts give."""

import numpy as np
import pytest

import data_sim
from data_sim.geometry import FanArc, ImageGrid
from data_sim.implants import Piece, disc
from data_sim.phantom import phantom_slice
from data_sim.scanner import simulate_slices

GRID = ImageGrid(96, 96, 4.2)
GEOMETRY = FanArc(views=60, bins=230, bin_pitch_rad=0.004)
OPTIONS = {"pixel_mm": 4.2, "geometry": GEOMETRY, "device": "cpu"}


@pytest.fixture(scope="module")
def clean_hu():
    return phantom_slice("pelvis", grid=GRID, seed=1)


def test_a_family_goes_where_it_belongs(clean_hu):
    one = data_sim.simulate(clean_hu, implant="hip", material="cocrmo", seed=3, **OPTIONS)
    assert one.sinogram_metal.shape == one.sinogram_reference.shape == GEOMETRY.shape
    assert one.metal.any()
    assert clean_hu[one.metal].min() > -300
    assert (one.geometry, one.grid) == (GEOMETRY, GRID)
    assert one.uncorrected_hu[one.metal].mean() > 3000 > one.stored_hu.max() - 72
    again = data_sim.simulate(clean_hu, implant="hip", material="cocrmo", seed=3, **OPTIONS)
    np.testing.assert_array_equal(one.sinogram_metal, again.sinogram_metal)
    other = data_sim.simulate(clean_hu, implant="hip", material="cocrmo", seed=4, **OPTIONS)
    assert (one.sinogram_reference != other.sinogram_reference).any()


def test_a_mask_stays_at_its_place(clean_hu):
    mask = np.zeros(GRID.shape, bool)
    mask[40:46, 30:35] = True
    one = data_sim.simulate(clean_hu, implant=mask, material="ti", **OPTIONS)
    assert np.count_nonzero(one.metal ^ mask) <= 4  # the corners of its outline are round
    assert {piece.material for piece in one.implant} == {"ti"}


def test_pieces_are_scanned_as_the_scanner_does(clean_hu):
    pieces = (Piece(disc(12.0, 10.0, -20.0), "fe"),)
    one = data_sim.simulate(clean_hu, implant=pieces, seed=5, **OPTIONS)
    rng = np.random.default_rng(5).spawn(2)[1]
    scan = simulate_slices(
        clean_hu[None].astype(np.float32),
        GRID,
        [pieces],
        [rng],
        geometry=GEOMETRY,
        settings=data_sim.ScanSettings(),
        device="cpu",
    )
    np.testing.assert_array_equal(one.sinogram_metal, scan.sinogram_metal[0])
    np.testing.assert_array_equal(one.reference_hu, scan.reference_hu[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"implant": "hipp"}, "unknown implant 'hipp'"),
        ({"implant": "dental"}, "no place for 'dental'"),
        ({"material": "gold"}, "unknown material 'gold'"),
        ({"implant": np.ones((3, 3), bool)}, "a mask of metal is bool"),
        ({"implant": np.zeros(GRID.shape)}, "not float64"),
        ({"implant": np.zeros(GRID.shape, bool)}, "with metal in it"),
        ({"implant": ()}, "at least one piece"),
    ],
)
def test_what_makes_no_sense(clean_hu, options, message):
    with pytest.raises(ValueError, match=message):
        data_sim.simulate(clean_hu, **OPTIONS, **options)


def test_a_slice_is_one_finite_image(clean_hu):
    for wrong in (clean_hu[None], np.where(clean_hu > 0, np.nan, clean_hu)):
        with pytest.raises(ValueError, match="one image"):
            data_sim.simulate(wrong, **OPTIONS)
