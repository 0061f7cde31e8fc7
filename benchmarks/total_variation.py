"""Time to smooth a slice by total variation, beside scikit-image's, and how far the two are apart.

python -m benchmarks.total_variation
"""

from __future__ import annotations

import argparse

import numpy as np
from skimage.restoration import denoise_tv_chambolle

from benchmarks.machine import describe, seconds
from ctmar.total_variation import chambolle
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice

ITERATIONS = 30
WEIGHT_HU = 40.0


def main() -> None:
    """Print the machine and the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    image_hu = phantom_slice("pelvis", grid=ImageGrid(512, 512, 0.8), seed=1)
    image_hu += np.random.default_rng(0).normal(0, 20, image_hu.shape).astype(np.float32)
    ours, theirs = chambolle(image_hu, weight=WEIGHT_HU, iterations=ITERATIONS), skimage(image_hu)
    ours_s = seconds(lambda: chambolle(image_hu, weight=WEIGHT_HU, iterations=ITERATIONS))
    theirs_s = seconds(lambda: skimage(image_hu))
    print(describe())
    print(f"512 x 512, {ITERATIONS} iterations, one core")
    print(f"ours {1e3 * ours_s:.1f} ms, scikit-image {1e3 * theirs_s:.1f} ms")
    print(f"ratio {theirs_s / ours_s:.1f}; largest difference {np.abs(ours - theirs).max():.1e} HU")


def skimage(image_hu: np.ndarray) -> np.ndarray:
    """The same by scikit-image, which takes images near 1."""
    smooth = denoise_tv_chambolle(image_hu / 1000, weight=WEIGHT_HU / 1000, eps=0, max_num_iter=ITERATIONS)
    return np.asarray(1000 * smooth)


if __name__ == "__main__":
    main()
