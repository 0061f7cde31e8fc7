"""Slices that are left out, and why."""

from dataclasses import replace

import numpy as np
import pytest

from ctmar.screening import NOT_WANTED, Screened, cut_off_share, screen, why_not, without_neighbours_of_metal
from ctmar.simulation_settings import SimulationSettings
from ctmar.sources import SourceSlice
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice

GRID = ImageGrid(160, 160, 2.6)


def disc(side=100, radius=30.0, row=49.5, col=49.5):
    rows, cols = np.mgrid[:side, :side]
    return np.where(np.hypot(rows - row, cols - col) <= radius, 0, -1000).astype(np.float32)


def test_a_patient_within_the_field_is_used():
    image = phantom_slice("pelvis", grid=GRID, seed=0, z_mm=0.0)
    assert why_not(image, GRID) == ""
    assert cut_off_share(image, image > -300) == 0


def test_a_table_alone_is_no_patient():
    """40 cm wide and 2 cm thick: 80 cm2, four times what a patient needs to have."""
    table = np.full((160, 160), -1000, np.float32)
    table[100:107, 10:150] = 50
    assert why_not(table, GRID).startswith("no patient, only things less than 30 mm thick")
    table[100:115, 10:150] = 50
    assert why_not(table, GRID) == ""


def test_the_share_of_the_outline_on_the_border():
    """A square of 40 pixels with one side on the border: a quarter of its outline."""
    image = np.full((100, 100), -1000, np.float32)
    image[0:40, 30:70] = 0
    assert cut_off_share(image, image == 0) == pytest.approx(0.25, abs=0.03)


def test_a_body_cut_by_the_reconstruction_circle():
    """A disc that leaves the circle on one side, with padding outside of it."""
    padded = disc(radius=50) == 0  # the field of view
    inside = disc(radius=60, col=20)
    image = np.where(padded, inside, -1000).astype(np.float32)
    assert cut_off_share(image, image == 0) > 0.4
    assert "cut off by the edge of the field of view" in why_not(image, ImageGrid(100, 100, 2.0))
    # without padding the same pixels end in the middle of the picture
    noise = np.random.default_rng(0).normal(0, 5, image.shape).astype(np.float32)
    image = np.where(padded, image, -1000 + noise).astype(np.float32)
    assert cut_off_share(image, (image > -300)) < 0.25


def test_arms_may_leave_the_field():
    image = disc(radius=30)
    image[45:55] = 0  # to both borders
    assert 0 < cut_off_share(image, image == 0) < 0.3
    assert why_not(image, ImageGrid(100, 100, 2.0)) == ""


def test_what_is_cut_off_is_not_searched_for_places():
    image = np.zeros((100, 100), np.float32)
    found = screen(SourceSlice("here", lambda: (image, ImageGrid(100, 100, 2.0), "p")))
    assert found.reason == "the patient is cut off by the edge of the field of view (100 % of the outline)"
    assert found.implants == ()


def test_slices_beside_metal_go_with_it():
    def at(series, z_mm, reason=""):
        return Screened(SourceSlice(f"{series}{z_mm}", lambda: None, series, z_mm), "p", GRID, ("clip",), reason)

    metal = replace(at("a", 0.0), reason="metal: values of 3000 HU and above", implants=())
    given = [metal, at("a", -5.0), at("a", 10.0), at("a", 10.5), at("b", 5.0), at("a", 2.0, "no implant fits")]
    result = without_neighbours_of_metal(given)
    assert [found.reason for found in result] == [
        metal.reason,
        "metal in a slice nearby (5.0 mm)",
        "metal in a slice nearby (10.0 mm)",
        "",
        "",
        "no implant fits",
    ]
    assert [found.implants for found in result] == [(), (), (), ("clip",), ("clip",), ("clip",)]
    assert without_neighbours_of_metal([replace(metal, slice=replace(metal.slice, series=""))])[0].implants == ()


def test_patients_may_be_left_out_or_chosen():
    source = SourceSlice("a", lambda: (phantom_slice("pelvis", grid=GRID, seed=0), GRID, "phantom-0"))
    others = SimulationSettings(exclude_patients=("phantom-0",))
    those = SimulationSettings(patients=("phantom-0",))
    assert screen(source, names=["clip"], wants=others.wants).reason == NOT_WANTED
    assert screen(source, names=["clip"], wants=those.wants).implants == ("clip",)
    assert not those.wants("phantom-1")
