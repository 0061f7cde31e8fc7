# %% [markdown]
# # 5. Your own data, methods and networks
#
# `ctmar` as a library: arrays in, arrays out; a method and an architecture of your own beside ours, with all tables and
# the command line.

# %%
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import ctmar
import data_sim
from ctmar.config import TrainingSettings
from ctmar.dicom.synthetic import write_ct_series
from ctmar.evaluation import evaluate
from ctmar.learning.training import train
from ctmar.metrics import summarise
from ctmar.report.pictures import Window, windowed
from ctmar.restorer import NetworkRestorer
from ctmar.simulation import simulate
from ctmar.simulation_settings import SimulationSettings
from data_sim.phantom import phantom_slice

# %% [markdown]
# ## Your own metal in your own image
#
# Any array in HU, any mask: here two rods.

# %%
clean_hu = phantom_slice("pelvis", grid=data_sim.ImageGrid(192, 192, 2.2), seed=2)
rods = np.zeros(clean_hu.shape, bool)
rods[95:103, 60:68] = rods[95:103, 125:133] = True
geometry = data_sim.FanArc(views=240, bins=350, bin_pitch_rad=0.0026)
case = data_sim.simulate(clean_hu, pixel_mm=2.2, implant=rods, material="cocrmo", geometry=geometry, device="cpu")

# %% [markdown]
# ## Correct arrays
#
# Images need the size of their pixels, sinograms their geometry. `metal` may be given; otherwise it is found.

# %%
settings = ctmar.CorrectionSettings(method="nmar2", device="cpu")
from_image = ctmar.correct(case.stored_hu, settings, pixel_mm=2.2)
from_sinogram = ctmar.correct(case.sinogram_metal, settings, geometry=case.geometry, grid=case.grid, metal=case.metal)
errors = {
    name: float(np.sqrt(np.mean((image - case.reference_hu)[~case.metal & (clean_hu > -300)] ** 2)))
    for name, image in (("uncorrected", case.stored_hu), ("image", from_image), ("sinogram", from_sinogram))
}
print(", ".join(f"{name} {error:.0f} HU" for name, error in errors.items()))
assert errors["sinogram"] < errors["image"] < errors["uncorrected"]
window = Window("soft", "Soft tissue", 40, 400)
sheet = np.concatenate([windowed(image, window) for image in (case.stored_hu, from_image, from_sinogram)], axis=1)
Image.fromarray(sheet).save("notebook-05.png")
Image.fromarray(sheet)

# %% [markdown]
# ## A method of your own
#
# A function from a `Correction` to images in HU, (slices, rows, cols). It has the sinogram, the trace, the projector,
# and every other method's images. This one fills the trace from the median of three images.


# %%
def median_prior(correction):
    """Trace replacement with the pixel-wise median of LI, NMAR1 and NMAR2 as prior."""
    images = correction.images(["li", "nmar1", "nmar2"]).values()
    return correction.replace_with_prior(np.median(np.stack(list(images)), axis=0))


ctmar.register_method("median-prior", median_prior)
median_hu = ctmar.correct(
    case.sinogram_metal,
    ctmar.CorrectionSettings(method="median-prior", device="cpu"),
    geometry=case.geometry,
    grid=case.grid,
    metal=case.metal,
)
print(f"change from NMAR2: {np.std(median_hu - from_sinogram):.1f} HU")

# %% [markdown]
# In a file, it goes to the command line: `ctmar --plugin mine.py correct SERIES --out OUT --method median-prior`. An
# installed package announces itself with an entry point of the group `ctmar.plugins`.
#
# ## A network of your own
#
# A `torch.nn.Module` from channels to one image, both in 1/cm, for images of any size.


# %%
class Small(nn.Module):
    """Two convolutions, added to the last channel."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, images):
        """The last channel plus what was learned."""
        return images[:, -1:] + 0.1 * self.layers(images)


ctmar.register_architecture("small", lambda names: Small(len(names)))
print(sum(weights.numel() for weights in Small(3).parameters()), "weights;", torch.__version__)

# %% [markdown]
# ## Train it, and score everything in one table

# %%
for number in range(4):
    image_hu = phantom_slice("pelvis", grid=data_sim.ImageGrid(144, 144, 2.9), seed=number)
    uid, patient = f"1.2.826.0.1.{number}", f"P{number}"
    write_ct_series(Path("clean", patient), image_hu[None], pixel_mm=2.9, series_uid=uid, patient_id=patient)
simulated = SimulationSettings(cases=4, seed=1, implants=("hip",), materials=("ti",), views=180)
simulate(["clean"], Path("db"), simulated, device="cpu")
training = TrainingSettings(arch="small", epochs=2, patches=120, patch=48, path="raw")
train([Path("db")], Path("small.safetensors"), training, device="cpu")
rows, _ = evaluate(Path("db"), restorer=NetworkRestorer("small.safetensors", device="cpu"), device="cpu")
scores = {row["method"]: row["rmse_body_hu"] for row in summarise(rows) if row["path"] == "raw"}
for name, error in scores.items():
    print(f"{name:14} {error:6.1f} HU")
assert {"median-prior", "cnn", "cnn-mar", "limit"} <= scores.keys()
