"""Total variation as the prior of the trace replacement, again and again: no network, no tissue classes.

The rays outside of the metal trace are measured and stay as they are. Those inside are taken from an image that total
variation has smoothed; what is reconstructed from both has fewer streaks, and is smoothed again. Streaks, which go up
and down across the whole image, cost more total variation than edges of tissue, so that they go and the edges stay. The
idea of a penalty with the measured rays as constraint is that of Zhang, Wang and Xing, "Metal artifact reduction in
x-ray computed tomography (CT) by constrained optimization", Med. Phys. 38(2):701-711, 2011; alternating a denoiser with
the data is "plug and play" (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013).
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctmar.prior import fill_from_ring
from data_sim.kernels import kernel, part

WEIGHTS_HU = (60.0, 50.0, 40.0, 40.0, 30.0, 30.0, 20.0, 20.0)
"""Weight of the total variation in each round, HU a pixel: streaks of less than about this go. Figures in
docs/total-variation.md."""

_ITERATIONS = 30
_STEP = 0.25
_RANGE_HU = (-1024.0, 2500.0)
"""What is beyond is cut: the brightest streaks would take many rounds to go."""


def tv_prior(image_hu: NDArray[np.float32], metal: NDArray[np.bool_], *, weight_hu: float) -> NDArray[np.float32]:
    """An image smoothed by total variation, with the metal filled from around it.

    Thirty iterations of Chambolle's dual algorithm: too few to reach the minimum of
    ``|x - image|^2 / 2 + weight TV(x)``, enough for streaks of a few pixels' width.

    Parameters
    ----------
    image_hu : float32 (rows, cols)
    metal : bool (rows, cols)
    weight_hu
        More of it smooths more.

    Returns
    -------
    float32 (rows, cols), HU
    """
    filled = fill_from_ring(np.clip(image_hu, *_RANGE_HU).astype(np.float32), metal)
    return chambolle(filled, weight=weight_hu, iterations=_ITERATIONS)


def chambolle(image: NDArray[np.float32], *, weight: float, iterations: int) -> NDArray[np.float32]:
    """The image so many steps towards the minimum of ``|x - image|^2 / 2 + weight TV(x)``.

    A. Chambolle, "An algorithm for total variation minimization and applications", J. Math. Imaging Vis. 20:89-97,
    2004, equation 9 with steps of 1/4. The result is that of scikit-image's ``denoise_tv_chambolle``, in a seventh of
    the time or less (`python -m benchmarks.total_variation`).

    Parameters
    ----------
    image : float32 (rows, cols)
    weight
        In the unit of the image a pixel; above 0.
    iterations
        The first gives the image itself.

    Returns
    -------
    float32 (rows, cols)
    """
    rows, cols = image.shape
    smooth = np.empty((rows, cols), np.float32)
    dual = np.zeros((2, rows, cols), np.float32)
    _chambolle(np.ascontiguousarray(image, np.float32), np.float32(_STEP / weight), iterations, dual, smooth)
    return smooth


@part
def _move(down, right, here, beside, below, step, step_per_weight):
    """Part of a row of the dual field, along the image's gradient."""
    for col in range(beside.size):
        along, across = below[col] - here[col], beside[col] - here[col]
        scale = np.float32(1) / (np.float32(1) + step_per_weight * np.sqrt(along * along + across * across))
        down[col] = (down[col] - step * along) * scale
        right[col] = (right[col] - step * across) * scale


@part
def _subtract(image, down, right, smooth):
    for col in range(image.size):
        smooth[col] = image[col] - down[col] - right[col]


@part
def _add(more, smooth):
    for col in range(more.size):
        smooth[col] += more[col]


@kernel("void(float32[:, ::1], float32, int64, float32[:, :, ::1], float32[:, ::1])")
def _chambolle(image, step_per_weight, iterations, dual, smooth):
    """One sweep an iteration: a row of the dual field can move once the row of the image below is there."""
    rows, cols = image.shape
    down, right = dual[0], dual[1]
    step = np.float32(_STEP)
    for iteration in range(iterations):
        for row in range(rows + 1):
            if row < rows:
                _subtract(image[row], down[row], right[row], smooth[row])
                _add(right[row, : cols - 1], smooth[row, 1:])
                if row > 0:
                    _add(down[row - 1], smooth[row])
            if row > 0 and iteration < iterations - 1:
                above, below = row - 1, min(row, rows - 1)  # there is no gradient beyond the last row and column
                here, end = smooth[above], cols - 1
                _move(down[above], right[above], here, here[1:], smooth[below], step, step_per_weight)
                here = here[end:]
                _move(down[above, end:], right[above, end:], here, here, smooth[below, end:], step, step_per_weight)
