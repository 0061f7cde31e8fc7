"""Our kernels against ASTRA's, on its CPU models everywhere and on a GPU where there is one."""

from dataclasses import replace

import numpy as np
import pytest

from data_sim.geometry import ImageGrid, Parallel
from data_sim.projection import Projector, astra, cpu
from data_sim.projection.filters import frequency_response, ramp_kernel
from tests.data_sim.analytic import (
    GEOMETRIES,
    GRID,
    HEAD,
    PARALLEL,
    SHEPP_LOGAN,
    Ellipse,
    disc,
    pixel_centres,
    raster,
    sinogram,
)

astra_toolbox = pytest.importorskip("astra", exc_type=ImportError)

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
no_cuda = astra.why_no_cuda()
needs_cuda = pytest.mark.skipif(no_cuda is not None, reason=no_cuda or "")

BODY = (Ellipse(0.02, -12.3, 8.1, 80, 55, 0.4), Ellipse(0.03, 30.2, -21.7, 25, 12, -1.1), disc(-0.01, -40, 35, 13))
OFF_CENTRE = GRID.crop(10, 101, 20, 117)


def rms(values):
    return np.sqrt(np.mean(np.square(values, dtype=float)))


@each_geometry
@pytest.mark.parametrize("grid", [GRID, OFF_CENTRE], ids=["centred", "off-centre"])
def test_forward_agrees_with_the_line_models(geometry, grid):
    """ASTRA's `linear` is Joseph's method, too; its fan model weights pixels by the length of the ray in them."""
    stack = raster(GRID, *BODY).astype(np.float32)[None]
    if grid is OFF_CENTRE:
        stack = stack[:, 10:101, 20:117]
    ours = Projector(geometry, grid, device="cpu").forward(stack)
    theirs = astra.forward(stack, geometry, grid, cuda=False)
    assert theirs.shape == ours.shape
    assert rms(theirs - ours) < (1e-5 if geometry.type == "parallel" else 5e-3) * ours.max()


@each_geometry
def test_forward_of_a_small_disc_agrees(geometry):
    """The centre of mass of every view: off by what pixels of 2 mm do to either line model, never on one side."""
    stack = raster(GRID, disc(1.0, 60.6, -71.2, 4.0)).astype(np.float32)[None]
    ours = Projector(geometry, GRID, device="cpu").forward(stack)[0].astype(float)
    theirs = astra.forward(stack, geometry, GRID, cuda=False)[0].astype(float)
    bins = np.arange(geometry.bins)
    apart = (theirs * bins).sum(axis=1) / theirs.sum(axis=1) - (ours * bins).sum(axis=1) / ours.sum(axis=1)
    assert rms(apart) < 0.06
    assert abs(apart.mean()) < 0.005


@each_geometry
@pytest.mark.parametrize("grid", [GRID, OFF_CENTRE], ids=["centred", "off-centre"])
def test_back_is_the_adjoint(geometry, grid):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, *grid.shape), np.float32), rng.random((2, *geometry.shape), np.float32)
    forward = astra.forward(x, geometry, grid, cuda=False).astype(float)
    back = astra.back(y, geometry, grid, cuda=False).astype(float)
    assert np.vdot(forward, y) == pytest.approx(np.vdot(x, back), rel=1e-5)


@each_geometry
@pytest.mark.parametrize("grid", [GRID, OFF_CENTRE], ids=["centred", "off-centre"])
def test_filtered_backprojection_in_torch_agrees(geometry, grid):
    few = replace(geometry, views=24, bin_offset=0.25)
    data = np.random.default_rng(0).normal(size=(3, *few.shape)).astype(np.float32)
    weight = np.random.default_rng(1).random(few.bins, np.float32)
    response = frequency_response(ramp_kernel(few.bins, 1.0), "hann", 0.8)
    theirs = astra.fbp(data, few, grid, weight, response, device="cpu")
    ours = cpu.fbp(data, few, grid, weight, response)
    assert theirs.shape == ours.shape == (3, *grid.shape)
    np.testing.assert_allclose(theirs, ours, atol=1e-3 * ours.std())


@each_geometry
def test_a_shifted_detector_is_shifted_in_astra_too(geometry):
    shifted = replace(geometry, bin_offset=-7.3)
    stack = raster(GRID, *BODY).astype(np.float32)[None]
    ours = Projector(shifted, GRID, device="cpu").forward(stack)
    assert rms(astra.forward(stack, shifted, GRID, cuda=False) - ours) < 5e-3 * ours.max()


def test_parallel_fbp_agrees_with_astras_own():
    p = sinogram(PARALLEL, *BODY).astype(np.float32)
    ours = Projector(PARALLEL, GRID, device="cpu").fbp(p)
    assert rms(astra_fbp(p, PARALLEL) - ours) < 0.012 * ours.max()  # ASTRA interpolates otherwise at edges


@pytest.mark.parametrize("phantom", [SHEPP_LOGAN, HEAD], ids=["shepp-logan", "head"])
@pytest.mark.parametrize(("pitch_mm", "part"), [(2.0, 1), (1.2, 8)], ids=["bins-as-pixels", "narrow-bins"])
def test_phantoms_come_back_at_least_as_well_as_from_astras_fbp(phantom, pitch_mm, part):
    """RMSE with edges, the bare ramp, exact line integrals; narrow bins measure the mean over their width.

    ASTRA smears a bin over a pixel's width. That blurs what narrow bins resolve (0.011 against 0.017), but tames the
    aliasing of sharp edges if narrow bins measure single lines (0.020 against 0.016), which no detector does.
    """
    scan = Parallel(views=400, bins=round(300 / pitch_mm), bin_pitch_mm=pitch_mm)
    split = replace(scan, bins=scan.bins * part, bin_pitch_mm=pitch_mm / part)
    p = sinogram(split, *phantom).reshape(*scan.shape, part).mean(axis=-1).astype(np.float32)
    truth = raster(GRID, *phantom)
    x, y = pixel_centres(GRID)
    field = np.hypot(x, y) < 120
    ours = Projector(scan, GRID, device="cpu").fbp(p)
    assert rms((ours - truth)[field]) <= rms((astra_fbp(p, scan) - truth)[field])
    assert rms((ours - truth)[field]) < 0.03 * truth.max()


@each_geometry
@pytest.mark.parametrize("phantom", [SHEPP_LOGAN, HEAD], ids=["shepp-logan", "head"])
def test_fans_reconstruct_phantoms_as_parallel_beams_do(geometry, phantom):
    """Twice the views over twice the arc; a fan's bins at the isocentre are as wide as the parallel ones."""
    truth = raster(GRID, *phantom)
    x, y = pixel_centres(GRID)
    field = np.hypot(x, y) < 120
    if geometry.type != "parallel":
        geometry = replace(geometry, views=360)
    error = Projector(geometry, GRID, device="cpu").fbp(sinogram(geometry, *phantom)) - truth
    parallel = astra_fbp(sinogram(PARALLEL, *phantom).astype(np.float32), PARALLEL) - truth
    assert rms(error[field]) < 1.5 * rms(parallel[field])


def astra_fbp(p, scan):
    """ASTRA's own filtered backprojection of a parallel sinogram on `GRID`."""
    volume = astra_toolbox.create_vol_geom(128, 128, -128, 128, -128, 128)
    # ASTRA measures angles so that its ray at 0 runs as ours does; the y axis is up in both
    angles = np.arange(scan.views) * np.pi / scan.views
    projections = astra_toolbox.create_proj_geom("parallel", scan.bin_pitch_mm, scan.bins, angles)
    ids = [astra_toolbox.create_projector("linear", projections, volume)]
    config = astra_toolbox.astra_dict("FBP")
    config["ProjectorId"] = ids[0]
    config["ProjectionDataId"] = astra_toolbox.data2d.create("-sino", projections, p)
    config["ReconstructionDataId"] = astra_toolbox.data2d.create("-vol", volume)
    config["option"] = {"FilterType": "ram-lak"}
    algorithm = astra_toolbox.algorithm.create(config)
    astra_toolbox.algorithm.run(algorithm)
    theirs = astra_toolbox.data2d.get(config["ReconstructionDataId"])
    astra_toolbox.algorithm.delete(algorithm)
    astra_toolbox.data2d.delete([config["ProjectionDataId"], config["ReconstructionDataId"]])
    astra_toolbox.projector.delete(ids)
    return theirs


# --- on a GPU -------------------------------------------------------------------------------------


@pytest.mark.cuda
@needs_cuda
@each_geometry
@pytest.mark.parametrize("grid", [GRID, OFF_CENTRE, ImageGrid(64, 200, 1.1)], ids=["centred", "off-centre", "wide"])
def test_cuda_agrees_with_cpu(geometry, grid):
    rng = np.random.default_rng(0)
    images = rng.random((5, *grid.shape), np.float32)
    sinograms = rng.random((5, *geometry.shape), np.float32)
    gpu, host = (Projector(geometry, grid, device=device) for device in ("cuda", "cpu"))
    assert gpu.device == "cuda"
    for name, stack, tolerance in (("forward", images, 0.01), ("back", sinograms, 0.02), ("fbp", sinograms, 0.01)):
        there, here = getattr(gpu, name)(stack), getattr(host, name)(stack)
        assert rms(there - here) < tolerance * rms(here), name
    wanted = rng.random(geometry.shape) < 0.5
    assert not gpu.forward(images, rays=wanted)[:, ~wanted].any()


@pytest.mark.cuda
@needs_cuda
@each_geometry
def test_cuda_reconstructs_ellipses(geometry):
    p = sinogram(geometry, *BODY)
    gpu, host = (Projector(geometry, GRID, device=device).fbp(p, window="hann") for device in ("cuda", "cpu"))
    np.testing.assert_allclose(gpu, host, atol=1e-5)
