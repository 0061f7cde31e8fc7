"""Streaks in an image without raw data: which errors of the metal's rays would draw them.

Whatever metal did to a scan it did to the rays of its trace. The scanner's image is u = t + F d, tissue t and the
reconstruction F of the errors d of those rays, so that d is nothing outside of the trace. Replacing the trace of a
reprojection of u does not find d: a reprojection A has spread F d over rays that never met metal. Here d is looked for
instead: the errors on the trace whose streaks F d explain best how u differs from a prior image of the tissue,

    d <- d + T (1 - L) A (u - prior - F d),

Landweber's iteration (Amer. J. Math. 73:615-624, 1951) with the projection A for the inverse of F, the trace T, and L
linear interpolation across it, by which what the prior has wrong on a broad scale does not become a streak. The first
step is the replacement of the trace as raw data have it.

Where a 12-bit scanner has cut the image off, at -1024 and 3071 HU or before, it says only that u was beyond: streaks
that go there have explained it. Around much metal most of what is left of the streaks comes from those pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctmar.interpolation import interpolate_trace
from ctmar.metrics import body_mask
from ctmar.segmentation import beside
from data_sim.morphology import grown
from data_sim.projection import Projector
from data_sim.scanner import STORED_HU

STEPS = 8
"""More change little: docs/streaks.md."""

_WINDOW = "hann"
"""Of the reconstruction; with the bare ramp, pixels that are coarse beside the bins make the steps diverge."""

STREAK_HU = 50.0
"""Pixels that are cut off without a streak of this size are air or metal."""

_AROUND_MM = 2.0
"""Air from here on is around the patient, clear of the blur of the skin."""

Stack = NDArray[np.float32]


def without_streaks(
    image_hu: Stack,
    prior_hu: Stack,
    trace: NDArray[np.bool_],
    projector: Projector,
    *,
    mu_water_per_mm: float,
    steps: int = STEPS,
) -> Stack:
    """Images less the streaks that the rays of the trace can make of their difference to the prior.

    Parameters
    ----------
    image_hu : float32 (slices, rows, cols)
        As stored, HU.
    prior_hu : float32 (slices, rows, cols)
        Of the tissue, HU.
    trace : bool (slices, views, bins)
    projector : of the trace's geometry and the images' grid
    mu_water_per_mm : attenuation that is 0 HU
    steps : Landweber's steps

    Returns
    -------
    float32 (slices, rows, cols), HU
        The prior where the scanner cut off tissue with streaks.
    """
    hu = np.float32(1000 / mu_water_per_mm)
    seen, rays = field_of_view(projector), beside(trace)
    errors = np.zeros(trace.shape, np.float32)
    dark, bright = cut_off(image_hu)
    streaks_hu = np.zeros_like(image_hu)
    for _ in range(steps):
        left_hu = image_hu - streaks_hu - prior_hu
        left_hu[(dark & (left_hu > 0)) | (bright & (left_hu < 0))] = 0  # the scanner only says that it was beyond
        left = projector.forward(left_hu / hu, rays=rays)
        errors += np.where(trace, left - interpolate_trace(left, trace), 0)
        # outside of the field of view a reconstruction means nothing, and would grow with every step
        streaks_hu = np.where(seen, projector.fbp(errors, window=_WINDOW) * hu, 0)
    unknown = (dark | bright) & (np.abs(streaks_hu) > STREAK_HU)
    return np.where(unknown, prior_hu, image_hu - streaks_hu)


def cut_off(image_hu: Stack) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a 12-bit scanner has cut an image (..., rows, cols) off, below and above.

    One that cuts off elsewhere (air at -1000 HU, say) shows it by the image's extremes; else those are a pixel or two.
    """
    lowest, highest = (extreme(image_hu, axis=(-2, -1), keepdims=True) for extreme in (np.min, np.max))
    return image_hu <= np.maximum(lowest, STORED_HU[0]), image_hu >= np.minimum(highest, STORED_HU[1])


def share_of_network(image_hu: Stack, *, pixel_mm: float) -> Stack:
    """How much of a network's image goes into the mean with `without_streaks`: half in the patient, all around him.

    In the air there is no detail to keep, and what is left of the streaks is seen best.

    Parameters
    ----------
    image_hu : float32 (slices, rows, cols)
        The network's, HU.

    Returns
    -------
    float32, same shape: 0.5 or 1
    """
    patient = np.stack([grown(body_mask(image), _AROUND_MM, pixel_mm) for image in image_hu])
    return np.where(patient, np.float32(0.5), np.float32(1))


def field_of_view(projector: Projector) -> NDArray[np.bool_]:
    """Pixels that every view sees, bool (rows, cols)."""
    grid = projector.grid
    return np.hypot(grid.x_mm(), grid.y_mm()[:, None]) <= projector.geometry.field_of_view_mm
