"""One clean slice in, sinograms and images with metal and without out: the virtual scanner in one call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, Geometry, ImageGrid
from data_sim.implants import Implant
from data_sim.implants.own import shape_of
from data_sim.materials import METALS
from data_sim.placement import place
from data_sim.scanner import simulate_slices


@dataclass(frozen=True, eq=False)
class SimulatedSlice:
    """What the virtual scanner makes of one slice.

    Attributes
    ----------
    sinogram_metal, sinogram_reference : float32 (views, bins)
        Water-corrected line integrals with metal and without, dimensionless.
    uncorrected_hu, reference_hu : float32 (rows, cols)
        Reconstructions of the two.
    stored_hu : float32 (rows, cols)
        The uncorrected image as a 12-bit scanner stores it: whole HU from -1024 to 3071.
    metal : bool (rows, cols)
        Pixels that are at least half metal.
    implant
        The pieces of metal, in mm.
    geometry, grid
        Of the sinograms and of the images.
    """

    sinogram_metal: NDArray[np.float32]
    sinogram_reference: NDArray[np.float32]
    uncorrected_hu: NDArray[np.float32]
    reference_hu: NDArray[np.float32]
    stored_hu: NDArray[np.float32]
    metal: NDArray[np.bool_]
    implant: Implant
    geometry: Geometry
    grid: ImageGrid


def simulate(
    clean_hu: ArrayLike,
    *,
    pixel_mm: float,
    implant: str | NDArray[np.bool_] | Implant = "hip",
    material: str = "ti",
    geometry: Geometry | None = None,
    settings: ScanSettings | None = None,
    seed: int = 0,
    device: str = "auto",
) -> SimulatedSlice:
    """Put metal into a clean CT slice and scan it.

    Parameters
    ----------
    clean_hu : float (rows, cols)
        A slice without metal in HU, the front of the patient up.
    pixel_mm
        Side of its square pixels.
    implant
        A family of `data_sim.placement.IMPLANTS`, put where it belongs in this slice; or a mask, bool (rows, cols), of
        metal at its own place; or pieces (`data_sim.implants.Piece`), in mm from the middle of the image.
    material
        A code of `data_sim.materials.METALS`. Pieces have their own. Some families prefer another one, or add plastic
        parts.
    geometry
        Of the scan; a clinical fan beam, `data_sim.geometry.FanArc`, by default.
    settings
        Tube, dose and detector; those of Zhang & Yu 2018 by default.
    seed
        Of the place of the implant and of the noise: the same arguments give the same result.
    device
        "auto", "cpu" or "cuda".

    Raises
    ------
    ValueError
        Where the slice has no room for the implant, a name is unknown, the image is not finite or shapes do not fit.
    """
    image_hu = np.asarray(clean_hu, np.float32)
    if image_hu.ndim != 2 or not np.isfinite(image_hu).all():
        raise ValueError(f"a clean slice is one image (rows, cols) of finite HU, not {image_hu.shape}")
    if material not in METALS:
        raise ValueError(f"unknown material {material!r}: expected one of {', '.join(METALS)}")
    rows, cols = image_hu.shape
    grid = ImageGrid(rows, cols, pixel_mm)
    for_place, for_noise = np.random.default_rng(seed).spawn(2)
    if isinstance(implant, str):
        pieces = place(implant, image_hu, grid, for_place, [material])
        if pieces is None:
            raise ValueError(f"this slice has no place for {implant!r}; try another one, or give a mask")
    elif isinstance(implant, np.ndarray):
        if implant.shape != image_hu.shape or implant.dtype != bool:
            raise ValueError(f"a mask of metal is bool {image_hu.shape}, not {implant.dtype} {implant.shape}")
        pieces = shape_of(implant, pixel_mm).of(material)
    else:
        pieces = implant
    geometry = geometry or FanArc()
    scan = simulate_slices(
        image_hu[None],
        grid,
        [pieces],
        [for_noise],
        geometry=geometry,
        settings=settings or ScanSettings(),
        device=device,
    )
    return SimulatedSlice(
        **{name: stack[0] for name, stack in vars(scan).items()}, implant=pieces, geometry=geometry, grid=grid
    )
