"""Total variation as the prior of the trace replacement, again and again: no network, no tissue classes.

The rays outside of the metal trace are measured and stay as they are. Those inside are taken from an image that total
variation has smoothed; what is reconstructed from both has fewer streaks, and is smoothed again. Streaks, which go up
and down across the whole image, cost more total variation than edges of tissue, so that they go and the edges stay. The
idea of a penalty with the measured rays as constraint is that of Zhang, Wang and Xing, "Metal artifact reduction in
x-ray computed tomography (CT) by constrained optimization", Med. Phys. 38(2):701-711, 2011; alternating a denoiser with
the data is "plug and play" (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_tv_chambolle

from ctmar.prior import fill_from_ring

WEIGHTS_HU = (60.0, 50.0, 40.0, 40.0, 30.0, 30.0, 20.0, 20.0)
"""Weight of the total variation in each round, HU a pixel: streaks of less than about this go. Figures in
docs/total-variation.md."""

_ITERATIONS = 30
_RANGE_HU = (-1024.0, 2500.0)
"""What is beyond is cut: the brightest streaks would take many rounds to go."""


def tv_prior(image_hu: NDArray[np.float32], metal: NDArray[np.bool_], *, weight_hu: float) -> NDArray[np.float32]:
    """An image smoothed by total variation, with the metal filled from around it.

    Thirty iterations of Chambolle's dual algorithm (J. Math. Imaging Vis. 20, 2004), as scikit-image has it: too few to
    reach the minimum of ``|x - image|^2 / 2 + weight TV(x)``, enough for streaks of a few pixels' width.

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
    smooth = denoise_tv_chambolle(filled / 1000, weight=weight_hu / 1000, eps=0, max_num_iter=_ITERATIONS)
    return np.asarray(smooth * 1000, np.float32)
