# %% [markdown]
# # Simulate a case and correct it
#
# A pelvis of the built-in phantom gets an iron hip prosthesis, goes through the virtual scanner, and is corrected by
# the classical methods. Small on purpose: 256 x 256 pixels, 360 views.

# %%
from pathlib import Path

import numpy as np

from ctmar.methods import Correction
from ctmar.metrics import body_mask, evaluate_image
from ctmar.report import WINDOWS, SlicePreview, before_after_sheet
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, ImageGrid
from data_sim.phantom import phantom_slice
from data_sim.placement import place
from data_sim.projection import Projector
from data_sim.scanner import simulate_slices
from data_sim.units import MU_WATER_PER_MM

# %% [markdown]
# ## A clean slice and an implant in it

# %%
grid = ImageGrid(256, 256, 1.6)
clean_hu = phantom_slice("pelvis", grid=grid, seed=7)
implant = place("hip", clean_hu, grid, np.random.default_rng(7), ["fe"])
assert implant is not None
print(f"{len(implant)} pieces of {', '.join(sorted({piece.material for piece in implant}))}")

# %% [markdown]
# ## The scan: polychromatic, noisy, water-corrected
#
# The reference is the same slice through the same scanner, without the metal.

# %%
geometry = FanArc(views=360, bins=460, bin_pitch_rad=0.002)
scan = simulate_slices(
    clean_hu[None],
    grid,
    [implant],
    [np.random.default_rng(0)],
    geometry=geometry,
    settings=ScanSettings(),
    device="cpu",
)
longest = float(scan.sinogram_metal.max())
print(f"largest line integral {longest:.1f}; without metal {scan.sinogram_reference.max():.1f}")

# %% [markdown]
# ## The corrections

# %%
correction = Correction(
    scan.sinogram_metal,
    scan.uncorrected_hu,
    scan.metal,
    Projector(geometry, grid, device="cpu"),
    mu_water_per_mm=MU_WATER_PER_MM,
)
images = correction.images(["uncorrected", "bhc", "li", "nmar1", "nmar2"])
body = body_mask(scan.reference_hu[0])
scores = {name: evaluate_image(image[0], scan.reference_hu[0], scan.metal[0], body) for name, image in images.items()}
for name, score in scores.items():
    print(f"{name:12} RMSE in the body {score['rmse_body_hu']:6.1f} HU, SSIM {score['ssim']:.3f}")
assert scores["nmar2"]["rmse_body_hu"] < scores["uncorrected"]["rmse_body_hu"]

# %% [markdown]
# ## A picture

# %%
preview = SlicePreview(
    "iron hip, NMAR2", scan.uncorrected_hu[0], images["nmar2"][0], scan.reference_hu[0], scan.metal[0]
)
before_after_sheet([preview], Path("notebook-01.png"), WINDOWS[0])
