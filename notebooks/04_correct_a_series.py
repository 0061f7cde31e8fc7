# %% [markdown]
# # 4. Correct a DICOM series and judge it
#
# A phantom pelvis with a hip prosthesis, scanned and written as DICOM, stands for a series of yours; the same by
# command is
#
#     ctmar correct series --out corrected --report --difference
#
# Corrected images are for research. They are derived, they say so, and the source stays as it was.

# %%
import json
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

import ctmar
import data_sim
from ctmar.dicom.synthetic import write_ct_series
from ctmar.report.pictures import Window, windowed
from data_sim.phantom import phantom_series


def picture(*images, low=-160.0, high=240.0):
    """Images of one height, side by side, from black at `low` to white at `high`."""
    grey = [windowed(image, Window("", "", (low + high) / 2, high - low)) for image in images]
    return Image.fromarray(np.concatenate(grey, axis=1))


grid = data_sim.ImageGrid(256, 256, 1.6)
clean_hu = phantom_series("pelvis", 3, grid=grid, seed=3, spacing_mm=3.0)
cases = [data_sim.simulate(clean_hu[1], pixel_mm=1.6, implant="hip", material="ti", seed=3, device="cpu")]
series_hu = np.stack([clean_hu[0], cases[0].stored_hu, clean_hu[2]])
write_ct_series(Path("series"), series_hu, pixel_mm=1.6, spacing_mm=3.0)

# %% [markdown]
# ## First: what is metal?
#
# Everything depends on it. Too little leaves streaks, too much takes away bone. `ctmar correct --dry-run` lists the
# slices with metal; `--preview` and `--seg` show it.

# %%
metal = ctmar.find_metal(series_hu, pixel_mm=1.6, slice_mm=3.0)
print("pixels of metal by slice:", metal.sum(axis=(1, 2)).tolist(), "- truth:", int(cases[0].metal.sum()))
picture(series_hu[1], np.where(metal[1], 3000, series_hu[1]))

# %% [markdown]
# ## Correct

# %%
settings = ctmar.CorrectionSettings(method="nmar2", report=True, difference=True, device="cpu")
result = ctmar.correct_series("series", "corrected", settings)
print(result.corrected, "of", len(result.slices), "slices corrected")
for one in result.slices:
    print(one.in_words())
for text in (*result.warnings, *result.about_slices()):
    print("warning:", text)

# %% [markdown]
# ## What was written
#
# A new series in the same study and frame of reference, slices without metal with identical pixels, `report.html` to
# look at and `report.json` for programs.

# %%
before, after = (pydicom.dcmread(Path(folder, "0002.dcm")) for folder in ("series", "corrected"))
print(list(after.ImageType), "|", after.SeriesDescription, "|", after.DerivationDescription[:60], "...")
assert after.FrameOfReferenceUID == before.FrameOfReferenceUID
untouched = [pydicom.dcmread(Path(folder, "0001.dcm")).pixel_array for folder in ("series", "corrected")]
np.testing.assert_array_equal(*untouched)
report = json.loads(Path("corrected", "report.json").read_text())
print("settings:", {name: report["settings"][name] for name in ("method", "strength", "adaptive")})
print("report.html:", Path("corrected", "report.html").stat().st_size // 1024, "kB")

# %% [markdown]
# ## Judge it
#
# Look at before, after and the difference. Streaks in the difference are what was taken away. Anatomy in it, edges of
# bone above all, is what was lost or invented.

# %%
before_hu, after_hu = (ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in (before, after))
sheet = picture(before_hu, after_hu, after_hu - before_hu + 40)
sheet.save("notebook-04.png")
sheet

# %% [markdown]
# Here the truth is known, which it never is in a patient:

# %%
reference_hu, soft = cases[0].reference_hu, (np.abs(cases[0].reference_hu) < 200) & ~cases[0].metal
for name, image_hu in (("before", before_hu), ("after", after_hu)):
    error = (image_hu - reference_hu)[soft]
    print(f"{name}: error in soft tissue {error.mean():+.1f} +- {error.std():.1f} HU")
assert np.std((after_hu - reference_hu)[soft]) < np.std((before_hu - reference_hu)[soft])

# %% [markdown]
# Without a reference: is uniform tissue near the metal more uniform, is its mean where it should be, and is tissue far
# away unchanged? `docs/limits.md` lists what to check before an image is used for anything.
