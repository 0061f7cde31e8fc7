# %% [markdown]
# # 3. Train a small network
#
# From clean slices to a database, a network, and a table that says whether it is any good. Everything is small: eight
# cases of 144 x 144 pixels and a minute of training show the way, not what networks can do. The same by command:
#
#     ctmar simulate clean --out db --cases 8 ...
#     ctmar train db --out net.safetensors --config net.toml
#     ctmar evaluate test-db --out results --model net.safetensors

# %%
import csv
from pathlib import Path
from shutil import copyfile

import h5py
import numpy as np
from PIL import Image

from ctmar.config import TrainingSettings
from ctmar.database import read_index
from ctmar.dicom.synthetic import write_ct_series
from ctmar.evaluation import evaluate
from ctmar.learning.training import train
from ctmar.metrics import summarise
from ctmar.restorer import NetworkRestorer
from ctmar.simulation import preview, simulate
from ctmar.simulation_settings import SimulationSettings
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice

# %% [markdown]
# ## Clean slices, as a scanner would send them
#
# Slices of the phantom stand for yours. The last one holds a bright pin, and will be left out: what has metal in it
# already cannot be a reference.

# %%
grid = ImageGrid(144, 144, 2.9)
slices_hu = [phantom_slice("pelvis", grid=grid, seed=seed) for seed in range(7)]
slices_hu[6][70:73, 70:73] = 3071
for number, image_hu in enumerate(slices_hu):
    folder = Path("clean" if number < 4 or number == 6 else "others", str(number))
    uid, patient = f"1.2.826.0.1.{number}", f"P{number}"
    write_ct_series(folder, image_hu[None], pixel_mm=2.9, series_uid=uid, patient_id=patient)

# %% [markdown]
# ## Look before you scan
#
# A preview draws where the metal goes, in seconds.

# %%
common = {"implants": ("hip", "clip"), "materials": ("ti", "fe"), "views": 180}
settings = SimulationSettings(cases=8, seed=1, **common)
looked = preview(["clean"], Path("db"), settings)
for name, reason in looked.skipped:
    print(f"left out: {name}: {reason}")
assert len(looked.skipped) == 1
copyfile("db/planned.png", "notebook-03.png")
Image.open("notebook-03.png")

# %% [markdown]
# ## The database, read with h5py alone

# %%
simulate(["clean"], Path("db"), settings, device="cpu")
for row in read_index(Path("db"))[:3]:
    print(row["case"], row["patient"], row["implant"], row["material"])
with h5py.File("db/case-000001.h5") as file:
    print(list(file), file["sinogram/metal"].shape)

# %% [markdown]
# ## Training
#
# Patients are split, never slices. The paper's architecture, three channels, raw data only; few and small patches.

# %%
training = TrainingSettings(epochs=6, patches=400, patch=48, batch_size=16, lr=2e-3, path="raw")
card = train([Path("db")], Path("net.safetensors"), training, device="cpu")
print({name: len(card.data[name]) for name in ("patients_trained", "patients_validated")})
with Path("net.training", "log.csv").open() as file:
    for row in csv.DictReader(file):
        losses = [f"{float(row[name]):.2e}" for name in ("train_loss", "validation_loss")]
        print(f"epoch {row['epoch']}: training {losses[0]}, validation {losses[1]}")
print("loss of the inputs:", {name: f"{loss:.2e}" for name, loss in card.metrics["validation_of_inputs"].items()})

# %% [markdown]
# ## Is it any good?
#
# On other patients, beside all methods, from raw data. A network that learned for a minute from four slices of a
# phantom is hardly better than NMAR2; docs/training.md has how to do it in earnest.

# %%
simulate(["others"], Path("test-db"), SimulationSettings(cases=3, seed=5, **common), device="cpu")
rows, _ = evaluate(Path("test-db"), restorer=NetworkRestorer("net.safetensors", device="cpu"), device="cpu")
raw = {row["method"]: row["rmse_body_hu"] for row in summarise(rows) if row["path"] == "raw"}
for name, error in raw.items():
    print(f"{name:12} {error:6.1f} HU")
assert raw["cnn-mar"] < raw["uncorrected"]
assert np.isfinite(list(raw.values())).all()
