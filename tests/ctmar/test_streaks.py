"""Streaks that the trace's rays can make: taken out of images that truly hold them, and of nothing else."""

from itertools import pairwise

import numpy as np
import pytest

from ctmar.segmentation import metal_path_mm, metal_trace
from ctmar.streaks import STEPS, field_of_view, without_streaks
from data_sim.geometry import FanArc, ImageGrid
from data_sim.projection import Projector
from data_sim.scanner import STORED_HU
from data_sim.units import MU_WATER_PER_MM
from tests.data_sim.analytic import Ellipse, disc, raster

GRID = ImageGrid(128, 128, 3.0)
PROJECTOR = Projector(FanArc(views=360, bins=250, bin_pitch_rad=0.003), GRID, device="cpu")
HU = np.float32(1000 / MU_WATER_PER_MM)
METAL = raster(GRID, disc(1, 40, 10, 14))[None] > 0.5
TRACE = metal_trace(metal_path_mm(METAL, PROJECTOR))
TISSUE_HU = (-1000 + raster(GRID, Ellipse(1050, 0, 0, 160, 110), disc(500, -60, 0, 25))).astype(np.float32)[None]
BODY = (raster(GRID, Ellipse(1, 0, 0, 155, 105)) > 0.5)[None] & ~METAL


def streaked(strength):
    """The tissue as a scanner shows it whose rays through metal are wrong by up to `strength`, and not cut off."""
    path_mm = metal_path_mm(METAL, PROJECTOR)
    angle = np.linspace(0, 2 * np.pi, TRACE.shape[1], endpoint=False)[None, :, None]
    errors = strength * (path_mm / path_mm.max()) * (1 + np.cos(2 * angle))
    return TISSUE_HU + PROJECTOR.fbp(errors.astype(np.float32), window="hann") * HU


def rmse(image_hu, where=BODY):
    return float(np.sqrt(np.mean((image_hu - TISSUE_HU)[where] ** 2)))


def result(image_hu, prior_hu=TISSUE_HU, **options):
    return without_streaks(image_hu, prior_hu, TRACE, PROJECTOR, mu_water_per_mm=MU_WATER_PER_MM, **options)


def test_with_the_true_prior_streaks_go_step_by_step():
    image_hu = streaked(2.0)
    errors = [rmse(image_hu), *(rmse(result(image_hu, steps=steps)) for steps in (1, 3, STEPS))]
    assert all(after < 0.7 * before for before, after in pairwise(errors)), errors
    assert errors[-1] < 0.1 * errors[0]


def test_a_prior_that_is_wrong_beside_the_trace_changes_nothing_there():
    """What no ray through metal has seen stays, however wrong the prior: it is no streak."""
    wrong = TISSUE_HU + 200 * (raster(GRID, disc(1, -110, 30, 12))[None] > 0.5)
    untouched = np.abs(result(TISSUE_HU, wrong) - TISSUE_HU)
    assert untouched.max() < 60  # the prior says 200
    assert rmse(result(TISSUE_HU, wrong)) < 0.35 * rmse(wrong)


@pytest.mark.parametrize("lowest", [STORED_HU[0], -1000])
def test_what_the_scanner_cut_off_is_no_evidence(lowest):
    """Bands darker than is stored: taken at their word they leave more than if known to be as dark or darker."""
    image_hu = streaked(12.0)
    stored = np.clip(image_hu, lowest, STORED_HU[1])
    cut_off = BODY & (stored <= lowest)
    assert cut_off.sum() > 20
    got = result(stored)
    assert rmse(got, cut_off) < 1  # the prior's
    at_their_word = stored + np.where(stored <= lowest, np.float32(0.01), np.float32(0))
    at_their_word[0, 0, 0] = lowest  # so that the image's least value is still `lowest`
    assert rmse(got) < 0.7 * rmse(result(at_their_word))


def test_without_a_trace_the_image_is_what_it_was():
    stack = np.concatenate([streaked(2.0), TISSUE_HU])
    trace = np.concatenate([TRACE, np.zeros_like(TRACE)])
    prior = np.zeros_like(stack)
    got = without_streaks(stack, prior, trace, PROJECTOR, mu_water_per_mm=MU_WATER_PER_MM)
    np.testing.assert_array_equal(got[1], TISSUE_HU[0])
    alone = result(stack[:1], prior[:1])
    np.testing.assert_allclose(got[:1], alone, atol=0.05)


@pytest.mark.parametrize("steps", [40])
def test_many_steps_stay_bounded(steps):
    assert rmse(result(streaked(2.0), steps=steps)) < 1.5 * rmse(result(streaked(2.0)))


def test_nothing_outside_the_field_of_view():
    image_hu = streaked(2.0)
    outside = ~field_of_view(PROJECTOR)
    assert outside.any()
    np.testing.assert_array_equal(result(image_hu)[0][outside], image_hu[0][outside])
