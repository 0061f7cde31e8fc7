# %% [markdown]
# # 1. Simulate a case and look inside the physics
#
# A hip prosthesis goes into a clean slice, and the slice through the virtual scanner. Then each step apart: what the
# tube sends, what metal does to it, why the line integrals are wrong, and what the reconstruction makes of that.
# Small on purpose: 256 x 256 pixels, 360 views. The built-in phantom stands for a slice of yours.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

import data_sim
from ctmar.report.pictures import Window, windowed
from data_sim.materials import linear_attenuation
from data_sim.phantom import phantom_slice
from data_sim.polychromatic import polychromatic
from data_sim.projection import Projector
from data_sim.spectrum import load_spectrum
from data_sim.tissue import split_tissue
from data_sim.water_correction import apply_water_correction, fit_water_correction


def picture(*images, low=-160.0, high=240.0):
    """Images of one height, side by side, from black at `low` to white at `high`."""
    grey = [windowed(image, Window("", "", (low + high) / 2, high - low)) for image in images]
    return Image.fromarray(np.concatenate(grey, axis=1))


# %% [markdown]
# ## In one call
#
# `simulate` takes any (rows, cols) array in HU without metal. The implant is a family that is put where it belongs, a
# mask, or pieces in mm. The same seed gives the same case.

# %%
grid = data_sim.ImageGrid(256, 256, 1.6)
clean_hu = phantom_slice("pelvis", grid=grid, seed=7)
geometry = data_sim.FanArc(views=360, bins=460, bin_pitch_rad=0.002)
case = data_sim.simulate(
    clean_hu, pixel_mm=grid.pixel_mm, implant="hip", material="fe", geometry=geometry, seed=7, device="cpu"
)
print(f"{len(case.implant)} pieces of metal, {case.metal.sum()} pixels")
error_hu = np.sqrt(np.mean((case.uncorrected_hu - case.reference_hu)[~case.metal] ** 2))
print(f"error outside of the metal: {error_hu:.0f} HU")
sheet = picture(case.reference_hu, case.uncorrected_hu)
sheet.save("notebook-01.png")
sheet

# %% [markdown]
# ## The beam
#
# A tube sends photons of all energies up to its voltage, and every material stops the soft ones first. A centimetre
# of iron is as much as how many of water?

# %%
spectrum = load_spectrum(120)
print(f"mean energy {spectrum.mean_energy_kev:.0f} keV")
at_mean = {code: float(linear_attenuation(code, spectrum.mean_energy_kev)) for code in ("water", "bone", "ti", "fe")}
for code, mu in at_mean.items():
    print(f"{code:6} {mu:.4f} per mm, {mu / at_mean['water']:5.1f} times water")

# %% [markdown]
# ## Beam hardening
#
# Behind much metal only hard photons are left, which see less of it: the line integral falls behind what it would be
# with one energy. The correction for water, which every scanner has, mends water and makes metal no better.

# %%
thickness_mm = np.array([1, 2, 5, 10, 20, 40], np.float32)
water, iron = (polychromatic({code: thickness_mm}, spectrum) for code in ("water", "fe"))
coefficients = fit_water_correction(spectrum)
reference_kev = 70.0
for code, p in (("water", water), ("fe", iron)):
    straight = linear_attenuation(code, reference_kev) * thickness_mm
    share = apply_water_correction(p, coefficients) / straight
    print(f"{code:6}", " ".join(f"{t:3.0f} mm: {s:4.2f}" for t, s in zip(thickness_mm, share, strict=True)))
shares_of_iron = apply_water_correction(iron, coefficients) / (linear_attenuation("fe", reference_kev) * thickness_mm)
assert (np.diff(shares_of_iron) < 0).all()

# %% [markdown]
# ## Photon starvation
#
# Behind four centimetres of iron and a pelvis hardly a photon arrives. The noise of a line integral p is that of the
# photons that are left: sqrt(exp(p) / N).

# %%
longest = float(case.sinogram_metal.max())
counted = data_sim.ScanSettings().photons * np.exp(-longest)
print(f"largest line integral {longest:.1f} (without metal {case.sinogram_reference.max():.1f}): {counted:.2g} photons")

# %% [markdown]
# ## The sinogram
#
# Rows are views, columns detector bins; the bright bands are the metal. Beside it what the metal changed.

# %%
picture(case.sinogram_metal, case.sinogram_metal - case.sinogram_reference, low=0, high=12)

# %% [markdown]
# ## What makes the streaks
#
# The same scan without noise and scatter: what is left is beam hardening and the metal's sharp edge. Beside it what
# noise, starvation and scatter add.

# %%
quiet = data_sim.ScanSettings(photons=1e12, scatter_photons=0)
noise_free = data_sim.simulate(
    clean_hu, pixel_mm=1.6, implant=case.implant, geometry=geometry, settings=quiet, seed=7, device="cpu"
)
hardened_hu = np.sqrt(np.mean((noise_free.uncorrected_hu - noise_free.reference_hu)[~case.metal] ** 2))
print(f"error without noise and scatter: {hardened_hu:.0f} HU, with them {error_hu:.0f} HU")
assert hardened_hu < error_hu
picture(noise_free.uncorrected_hu, case.uncorrected_hu - noise_free.uncorrected_hu)

# %% [markdown]
# ## Other metals
#
# Titanium is gentle, gold is not. Implants of plastic or of several metals are pieces of several materials.

# %%
images = []
for material in ("ti", "fe", "au"):
    of_metal = data_sim.simulate(
        clean_hu, pixel_mm=1.6, implant=case.metal, material=material, geometry=geometry, device="cpu"
    )
    error = np.sqrt(np.mean((of_metal.uncorrected_hu - of_metal.reference_hu)[~of_metal.metal] ** 2))
    print(f"{material}: error {error:.0f} HU")
    images.append(of_metal.uncorrected_hu)
picture(*images)

# %% [markdown]
# ## Is it right?
#
# The projection of the tissue, and back: the slice comes back to a few HU in its uniform parts.

# %%
fractions = np.stack(split_tissue(clean_hu))
paths = Projector(geometry, grid, device="cpu").forward(fractions)
print(f"longest path: {paths[0].max():.0f} mm of water, {paths[1].max():.0f} mm of bone")
soft = (np.abs(clean_hu - np.median(clean_hu[clean_hu > -100])) < 5) & ~case.metal
print(f"reference minus clean slice, soft tissue: {np.median((case.reference_hu - clean_hu)[soft]):+.1f} HU")
assert Path("notebook-01.png").stat().st_size > 10_000
