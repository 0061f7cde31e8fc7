# %% [markdown]
# # Make a database, look at it, read it
#
# Two slices of the built-in phantom stand for clean CT of your own. They become a database of a few cases with metal:
# first as a preview, then simulated, then read with h5py alone. Small on purpose: 144 x 144 pixels, 90 views.

# %%
from pathlib import Path
from shutil import copyfile

import h5py
import numpy as np

from ctmar.database import read_index
from ctmar.dicom.synthetic import write_ct_series
from ctmar.simulation import preview, simulate
from ctmar.simulation_settings import SimulationSettings
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice

# %% [markdown]
# ## Clean slices, as a scanner would send them
#
# The second one holds a bright pin: it will be left out.

# %%
grid = ImageGrid(144, 144, 2.9)
slices_hu = [phantom_slice("pelvis", grid=grid, seed=seed) for seed in (0, 1)]
slices_hu[1][70:73, 70:73] = 3071
for number, image_hu in enumerate(slices_hu, start=1):
    write_ct_series(Path("clean", str(number)), image_hu[None], pixel_mm=2.9, series_uid=f"1.2.826.0.1.{number}")

# %% [markdown]
# ## Look before you scan

# %%
settings = SimulationSettings(cases=3, seed=1, implants=("hip", "clip"), materials=("ti", "cocrmo"), views=90, bins=230)
looked = preview(["clean"], Path("db"), settings)
copyfile("db/planned.png", "notebook-02.png")
for name, reason in looked.skipped:
    print(f"left out: {name}: {reason}")
assert len(looked.skipped) == 1

# %% [markdown]
# ## The database
#
# The same is made by `ctmar simulate clean --out db --cases 3 ...`, and again by
# `ctmar simulate --config db/simulation.toml --out db2`.

# %%
result = simulate(["clean"], Path("db"), settings, device="cpu")
for row in read_index(Path("db")):
    print(row)
assert result.cases == looked.cases

# %% [markdown]
# ## Read it, with h5py alone

# %%
with h5py.File("db/case-000001.h5") as file:
    sinogram, metal = file["sinogram/metal"][()], file["mask/metal"][()] > 0
    uncorrected_hu, reference_hu = file["image/uncorrected"][()], file["image/reference"][()]
error_hu = np.sqrt(np.mean((uncorrected_hu - reference_hu)[~metal] ** 2))
print(f"sinogram {sinogram.shape}, {metal.sum()} pixels of metal, error without correction {error_hu:.0f} HU")
