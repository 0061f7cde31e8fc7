# %% [markdown]
# # 2. The classical corrections, step by step
#
# What LI, BHC, NMAR, TV and EBHC do with the same sinogram, and where each goes wrong. Raw data here: the sinogram is
# the measured one. From DICOM images it is computed from the image, and everything is harder (notebook 4).

# %%
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

import data_sim
from ctmar import Correction
from ctmar.metrics import body_mask, evaluate_image
from ctmar.report.pictures import Window, windowed
from data_sim.phantom import phantom_slice
from data_sim.projection import Projector
from data_sim.units import MU_WATER_PER_MM


def picture(*images, low=-160.0, high=240.0):
    """Images of one height, side by side, from black at `low` to white at `high`."""
    grey = [windowed(image, Window("", "", (low + high) / 2, high - low)) for image in images]
    return Image.fromarray(np.concatenate(grey, axis=1))


grid = data_sim.ImageGrid(256, 256, 1.6)
geometry = data_sim.FanArc(views=360, bins=460, bin_pitch_rad=0.002)
case = data_sim.simulate(
    phantom_slice("pelvis", grid=grid, seed=7),
    pixel_mm=grid.pixel_mm,
    implant="hip",
    material="fe",
    geometry=geometry,
    seed=7,
    device="cpu",
)

# %% [markdown]
# ## One object for all methods
#
# `Correction` takes stacks, and computes what the methods share once: the metal's projection (the path in mm) and the
# trace, all rays that met metal.

# %%
correction = Correction(
    case.sinogram_metal[None],
    case.uncorrected_hu[None],
    case.metal[None],
    Projector(geometry, grid, device="cpu"),
    mu_water_per_mm=MU_WATER_PER_MM,
)
trace = correction.trace[0]
print(f"{trace.mean():.1%} of the rays met metal, the longest path is {correction.path_mm.max():.0f} mm")
body = body_mask(case.reference_hu)


def error_hu(image_hu):
    """Error in the patient, metal excluded."""
    return evaluate_image(image_hu, case.reference_hu, case.metal, body)["rmse_body_hu"]


# %% [markdown]
# ## LI: a line across the trace
#
# In every view the trace is bridged by a straight line. Bone that the same rays met is gone as well, which draws new
# streaks: LI is where the other methods begin, not a result.

# %%
measured, bridged = case.sinogram_metal, correction.li_sinogram[0]
np.testing.assert_array_equal(measured[~trace], bridged[~trace])
li_hu = correction.image("li")[0]
print(f"uncorrected {error_hu(case.uncorrected_hu):.0f} HU, LI {error_hu(li_hu):.0f} HU")
picture(measured, bridged, low=0, high=12)

# %% [markdown]
# ## BHC: straighten the metal's own hardening
#
# The error of a ray is taken for a polynomial of its path in metal. Rays that no photon survived are past helping: with
# heavy metal BHC is worse than nothing.

# %%
bhc_hu = correction.image("bhc")[0]
print(f"BHC {error_hu(bhc_hu):.0f} HU")
picture(case.uncorrected_hu, li_hu, bhc_hu)

# %% [markdown]
# ## NMAR: bridge what is flat
#
# A prior image (the LI image, its tissue set to one value, bone kept) is projected, and the *quotient* of the measured
# and the prior sinogram is bridged: where the prior is right, that is nearly 1 everywhere.

# %%
prior_hu = correction.prior_of("nmar2")[0]
nmar_hu = correction.image("nmar2")[0]
print(f"NMAR1 {error_hu(correction.image('nmar1')[0]):.0f} HU, NMAR2 {error_hu(nmar_hu):.0f} HU")
picture(prior_hu, nmar_hu, nmar_hu - case.reference_hu)

# %% [markdown]
# ## TV: again and again
#
# The trace is filled from an image that total variation has smoothed, the result is smoothed again, eight times.

# %%
tv_hu = correction.image("tv")[0]
print(f"TV {error_hu(tv_hu):.0f} HU")
picture(tv_hu, tv_hu - case.reference_hu)

# %% [markdown]
# ## EBHC: straightened towards TV's image
#
# The rays keep what they have measured; what hardening adds is a sum of eight terms, with the coefficients that bring
# the image closest to TV's. Behind much heavy metal photons are missing and that is of little use; behind titanium it
# is better than all others (docs/ebhc.md).

# %%
ebhc_hu = correction.image("ebhc")[0]
print(f"EBHC {error_hu(ebhc_hu):.0f} HU")
picture(ebhc_hu, ebhc_hu - case.reference_hu)

# %% [markdown]
# ## What no method can pass
#
# With the reference itself as prior, the trace is as right as it can be; what is left is noise, the mask and the
# reconstruction.

# %%
limit_hu = correction.replace_with_prior(case.reference_hu[None])[0]
names = ("uncorrected", "bhc", "li", "nmar1", "nmar2", "tv", "ebhc")
errors = {name: error_hu(correction.image(name)[0]) for name in names}
errors["limit"] = error_hu(limit_hu)
for name, error in errors.items():
    print(f"{name:12} {error:6.1f} HU")
assert errors["limit"] < errors["nmar2"] < errors["uncorrected"]
picture(case.uncorrected_hu, li_hu, nmar_hu, tv_hu, limit_hu).save("notebook-02.png")

# %% [markdown]
# ## A prior of your own
#
# Any image can be the prior. The clean one is the limit; here is a smooth one, to see what its errors cost.

# %%
for sigma_mm in (1, 3, 10):
    smooth_hu = gaussian_filter(case.reference_hu, sigma_mm / grid.pixel_mm)
    error = error_hu(correction.replace_with_prior(smooth_hu[None])[0])
    print(f"reference smoothed by {sigma_mm:2} mm as prior: {error:.1f} HU")
