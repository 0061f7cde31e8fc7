"""The virtual scanner: slices and implants in, sinograms and images out.

Metal, and the tissue that it replaces, are projected on a grid of their own, finer than the image's, so that the
simulation does not share the reconstruction's pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from data_sim.acquisition import ScanSettings, measure
from data_sim.geometry import FanArc, Geometry, ImageGrid
from data_sim.implants import Implant, coverage, fine_masks
from data_sim.materials import PLASTICS
from data_sim.polychromatic import Paths
from data_sim.projection import Projector
from data_sim.tissue import split_tissue
from data_sim.units import MU_WATER_PER_MM, mu_to_hu

KERNEL = "hann"
"""Window of the reconstruction. It halves the response at 4.2 lp/cm for bins of 0.6 mm, as a standard body kernel
does; with the bare ramp the sharp edge of a gold clip fills the image with aliasing that no scanner shows."""

STORED_HU = (-1024, 3071)
"""What a 12-bit scanner can store."""


@dataclass(frozen=True)
class CasePaths:
    """Path lengths of one case in mm.

    Attributes
    ----------
    reference : mapping of str to float32 ndarray, each (views, bins)
        Water and bone of the slice as it is.
    metal : mapping of str to float32 ndarray, each (views, bins, rays_per_bin)
        Water, bone and metals with metal in the place of tissue, along several rays of each bin. Where a ray
        grazes bone, what was taken from it may exceed what the bin's ray met by a fraction of a pixel: such
        lengths stay negative, since cutting them at 0 would add attenuation.
    """

    reference: Paths
    metal: Paths


def scan_case(
    paths: CasePaths, settings: ScanSettings, *, rng: np.random.Generator, geometry: Geometry | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sinograms of a case with metal and without: same spectrum, detector and corrections, independent noise.

    A bin detects the mean intensity of its rays, and of the parts of the slice with metal and without; only bins that
    meet metal are computed anew. The geometry is needed where a setting needs it.

    Returns
    -------
    metal, reference : float32 ndarray (views, bins)
        Line integrals, dimensionless.
    """
    beam = settings.beam(geometry)
    meets_metal = np.zeros(next(iter(paths.reference.values())).shape, bool)
    for code in paths.metal.keys() - paths.reference.keys():
        for ray in np.moveaxis(paths.metal[code], -1, 0):  # several times faster than any(axis=-1)
            meets_metal |= ray > 0
    rays = {code: path[meets_metal] for code, path in paths.metal.items()}
    p_metal, p_reference = [], []
    for spectrum in beam.spectra:
        p = beam.attenuation(paths.reference, spectrum)
        p_reference.append(p)
        p_metal.append(p.copy())
        if meets_metal.any():
            behind_metal = _mean_intensity(beam.attenuation(rays, spectrum, where=meets_metal))
            p_metal[-1][meets_metal] = _partly(behind_metal, p[meets_metal], settings.metal_fill)
    reference = measure(p_reference, beam, settings, rng)
    return measure(p_metal, beam, settings, rng), reference


def _mean_intensity(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """-ln(mean(exp(-p))) over the last axis, finite for any p."""
    least = p.min(axis=-1)
    return least - np.log(np.exp(least[..., None] - p).mean(axis=-1))


def _partly(p: NDArray[np.float32], without: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
    """-ln(fill exp(-p) + (1 - fill) exp(-without))."""
    if fill == 1:
        return p
    return -np.logaddexp(np.float32(np.log(fill)) - p, np.float32(np.log(1 - fill)) - without)


def project_case(
    image_hu: ArrayLike,
    grid: ImageGrid,
    metal: Mapping[str, NDArray[np.bool_]],
    fine_grid: ImageGrid,
    geometry: Geometry,
    *,
    rays_per_bin: int = 3,
    device: str = "auto",
) -> CasePaths:
    """Path lengths of a slice with and without metal.

    Metal, and the tissue that it replaces, are projected on a grid of their own, finer than the image's, so
    that their edge does not share the reconstruction's pixels. The replaced tissue is the image interpolated
    bilinearly; with metal the tissue's paths are those of the whole slice less the replaced ones.

    Parameters
    ----------
    image_hu : array_like, shape `grid.shape`
        Metal-free slice in HU.
    grid : ImageGrid
    metal : mapping of str to bool ndarray, shape `fine_grid.shape`
        Where each metal is, by its short code; they must not overlap.
    fine_grid : ImageGrid
        Usually a refined crop of `grid` around the metal.
    geometry : Geometry
    rays_per_bin : int
        Rays through the metal in each bin. One ray samples a sharp edge as no detector does: a titanium rod
        in a pelvis then costs 45 HU in soft tissue, with three rays 39 HU; the difference is aliasing.
    device : str
        "auto", "cpu" or "cuda".

    Returns
    -------
    CasePaths

    Raises
    ------
    ValueError
        Where shapes do not fit, metals overlap, or a metal is a tissue.
    """
    fractions = np.stack(split_tissue(image_hu))
    tissue = Projector(geometry, grid, device=device).forward(fractions)
    return project_metal(fractions, tissue, grid, metal, fine_grid, geometry, rays_per_bin=rays_per_bin, device=device)


def project_metal(
    fractions: NDArray[np.float32],
    tissue: NDArray[np.float32],
    grid: ImageGrid,
    metal: Mapping[str, NDArray[np.bool_]],
    fine_grid: ImageGrid,
    geometry: Geometry,
    *,
    rays_per_bin: int = 3,
    device: str = "auto",
) -> CasePaths:
    """As `project_case`, for a slice whose tissue is projected already.

    Parameters
    ----------
    fractions : float32 (2, rows, cols)
        Water and bone, see `data_sim.tissue.split_tissue`.
    tissue : float32 (2, views, bins)
        Their projections, mm.
    """
    masks = {code: np.asarray(mask, bool) for code, mask in metal.items()}
    if any(mask.shape != fine_grid.shape for mask in masks.values()):
        raise ValueError(f"metal masks must have the shape of the fine grid, {fine_grid.shape}")
    if masks.keys() & {"water", "bone"}:
        raise ValueError("water and bone are tissue, not metal")
    layers = sum(masks.values(), start=np.zeros(fine_grid.shape, np.uint8))
    if layers.max() > 1:
        raise ValueError("metals must not overlap")
    reference = dict(zip(("water", "bone"), tissue, strict=True))
    around = {code: path[..., None] for code, path in reference.items()}
    if not layers.any():
        return CasePaths(reference, around)
    replaced = _sample_at(fractions, grid, layers > 0, fine_grid)
    fine = np.stack([*replaced, *(mask.astype(np.float32) for mask in masks.values())])
    projector = Projector(_split_bins(geometry, rays_per_bin), fine_grid, device=device)
    water, bone, *metals = projector.forward(fine).reshape(-1, *geometry.shape, rays_per_bin)
    left = {"water": around["water"] - water, "bone": around["bone"] - bone}
    return CasePaths(reference, left | dict(zip(masks, metals, strict=True)))


@dataclass(frozen=True)
class SimulatedSlices:
    """What the virtual scanner makes of a stack of slices, all float32 but the mask.

    Attributes
    ----------
    sinogram_metal, sinogram_reference : (slices, views, bins)
        Water-corrected line integrals.
    uncorrected_hu, reference_hu : (slices, rows, cols)
        Reconstructions of the two.
    stored_hu : (slices, rows, cols)
        The uncorrected image as a 12-bit scanner stores it: rounded to whole HU and clipped.
    metal : bool (slices, rows, cols)
        Pixels that are at least half metal within the slice plane, however much of its thickness is filled; plastic
        parts of an implant are not metal.
    """

    sinogram_metal: NDArray[np.float32]
    sinogram_reference: NDArray[np.float32]
    uncorrected_hu: NDArray[np.float32]
    reference_hu: NDArray[np.float32]
    stored_hu: NDArray[np.float32]
    metal: NDArray[np.bool_]


def simulate_slices(
    images_hu: NDArray[np.float32],
    grid: ImageGrid,
    implants: Sequence[Implant],
    rngs: Sequence[np.random.Generator],
    *,
    geometry: Geometry,
    settings: ScanSettings,
    device: str = "auto",
) -> SimulatedSlices:
    """Scan slices with metal put into them, and the same slices without.

    Parameters
    ----------
    images_hu : float32 (slices, rows, cols)
        Metal-free slices.
    grid
        Their grid.
    implants
        What to put into each, see `data_sim.placement.place`.
    rngs
        The source of each slice's noise.
    geometry, settings, device
        The scan.
    """
    if not len(images_hu) == len(implants) == len(rngs):
        raise ValueError("every slice needs an implant and a random generator")
    projector = Projector(geometry, grid, device=device)
    fractions = np.stack([np.stack(split_tissue(image)) for image in images_hu])
    tissue = projector.forward(fractions.reshape(-1, *grid.shape)).reshape(-1, 2, *geometry.shape)
    sinograms = np.empty((2, len(images_hu), *geometry.shape), np.float32)
    metal = np.empty(images_hu.shape, bool)
    for index, (pieces, rng) in enumerate(zip(implants, rngs, strict=True)):
        fine_grid, masks = fine_masks(pieces, grid)
        removable = {code: mask for code, mask in masks.items() if code not in PLASTICS}
        metal[index] = coverage(removable, fine_grid, grid) >= 0.5
        paths = project_metal(
            fractions[index],
            tissue[index],
            grid,
            masks,
            fine_grid,
            geometry,
            rays_per_bin=settings.rays_per_bin,
            device=device,
        )
        sinograms[:, index] = scan_case(paths, settings, rng=rng, geometry=geometry)
    images = projector.fbp(sinograms.reshape(-1, *geometry.shape), window=KERNEL).reshape(2, *images_hu.shape)
    uncorrected_hu, reference_hu = mu_to_hu(images, MU_WATER_PER_MM)
    stored_hu = np.clip(np.rint(uncorrected_hu), *STORED_HU)
    return SimulatedSlices(sinograms[0], sinograms[1], uncorrected_hu, reference_hu, stored_hu, metal)


def _split_bins(geometry: Geometry, parts: int) -> Geometry:
    """The same detector with every bin cut into equal parts."""
    pitch = "bin_pitch_rad" if isinstance(geometry, FanArc) else "bin_pitch_mm"
    values = {"bins": geometry.bins * parts, "bin_offset": geometry.bin_offset * parts}
    finer: Geometry = replace(geometry, **values, **{pitch: getattr(geometry, pitch) / parts})  # type: ignore[arg-type]
    return finer


def _sample_at(
    images: NDArray[np.float32], grid: ImageGrid, where: NDArray[np.bool_], fine_grid: ImageGrid
) -> NDArray[np.float32]:
    """Bilinear values of (n, rows, cols) images at the fine pixels `where`; 0 elsewhere."""
    fine_rows, fine_cols = np.nonzero(where)
    rows = (grid.rows - 1) / 2 - (fine_grid.y_mm()[fine_rows] - grid.centre_y_mm) / grid.pixel_mm
    cols = (grid.cols - 1) / 2 + (fine_grid.x_mm()[fine_cols] - grid.centre_x_mm) / grid.pixel_mm
    out = np.zeros((len(images), *fine_grid.shape), np.float32)
    for values, image in zip(out, images, strict=True):
        values[where] = map_coordinates(image, (rows, cols), order=1, mode="grid-constant", cval=0.0)
    return out
