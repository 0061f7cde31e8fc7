"""Commands and code in README and documents run, on small data in the place of what they name; TOML is read.

Not those that install or measure, see `BY_HAND`.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from ctmar import cli
from ctmar.config import TrainingSettings, settings_from
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.synthetic import write_ct_series
from ctmar.errors import CtmarError, UsageError
from ctmar.pacs.settings import ServeSettings
from ctmar.presets import with_preset
from ctmar.simulation_settings import read_request
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice
from data_sim.projection import Projector
from data_sim.units import MU_WATER_PER_MM, hu_to_mu
from tests.ctmar.small import GEOMETRY, GRID, small_volumes, write_foreign_case, write_small_series, write_tiny_model
from tests.ctmar.toy_database import write_toy_database

pytestmark = pytest.mark.usefixtures("nothing_stays")

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))

CLEAN = ("clean-series", "clean", "CLEAN-CT", "TRAINING-FOLDERS", "TEST-FOLDERS", "other-patients", "phantom")
"""Sources of clean slices; what is said of the phantom is tried with small slices of it."""

WITH_THEIR_OWN = ("docs/other-mar-code.md",)
"""Documents whose code tests/test_documentation.py checks against our own results."""

SHORT = {"--cases": "2", "--views": "60", "--bins": "230"}
SMALL_TRAINING = 'epochs = 1\npatches = 40\npatch = 32\nbatch_size = 8\npath = "both"\n'

BY_HAND = ("pip", "make", ". .venv", "ctmar demo", "python -m benchmarks")
"""Not run here: they install, are what CI itself does (`make demo` runs `ctmar demo`), or measure for minutes."""


def blocks(document, language):
    """Code blocks of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document):
    """Lines of the shell, without comments."""
    lines = [line.split(" #")[0].strip() for block in blocks(document, "bash") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(BY_HAND)]


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A folder with small things under the names that documents use."""
    monkeypatch.chdir(tmp_path)
    grid = ImageGrid(128, 128, 3.3)
    for number, name in enumerate(CLEAN):
        for seed in (2 * number, 2 * number + 1):
            image_hu = phantom_slice("pelvis", grid=grid, seed=seed)
            uid, patient = f"1.2.826.0.1.{seed + 1}", f"P{seed}"
            write_ct_series(Path(name, str(seed)), image_hu[None], pixel_mm=3.3, series_uid=uid, patient_id=patient)
    nibabel.save(nibabel.Nifti1Image(image_hu.T[..., None], np.diag([3.3, 3.3, 2, 1])), "head.nii.gz")
    write_small_series(Path("SERIES"))
    for name in ("demo-out/series", "series"):
        shutil.copytree("SERIES", name)
    write_foreign_case(Path("case.h5"))
    for name in ("series-1", "series-2", "archive"):
        write_small_series(Path(name), series_uid=f"2.25.{len(name)}{name[-1:]}".replace("e", "9"))
    shutil.make_archive("archive", "zip", "archive")
    write_small_series(Path("archive/second"), series_uid="2.25.77")
    shutil.copyfile(ROOT / "deploy" / "serve.toml", "serve.toml")
    write_toy_database(Path("db"))
    model = write_tiny_model(Path())
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(model.with_suffix(suffix), f"my-model{suffix}")
    bar = np.zeros((32, 32), np.uint8)
    bar[12:20, 14:18] = 255
    Image.fromarray(bar).save("stem.png")
    nibabel.save(nibabel.Nifti1Image((bar > 0).astype(np.uint8)[..., None], np.eye(4)), "clip.nii.gz")
    for name in ("net.toml", "small.toml"):
        Path(name).write_text(SMALL_TRAINING)
    models = Path("ctmar", "models")
    models.mkdir(parents=True)
    for path in (ROOT / models).glob("*.toml"):
        values = tomllib.loads(path.read_text())
        arch = {name: values[name] for name in ("arch", "channels", "after") if name in values and "arch" in values}
        text = SMALL_TRAINING if "epochs" in values else "cases = 2\nviews = 60\nbins = 230\n"
        if "images" in values:
            text += f"images = {values['images']}\n"
        if "epochs" in values:
            text += "".join(f"{name} = {value!r}\n" for name, value in arch.items())
        (models / path.name).write_text(text)
    library = "\n".join(blocks("docs/library.md", "python")[1:])
    Path("mine.py").write_text("import ctmar\n" + re.sub(r"mine_hu = .*?\n\)\n", "", library, flags=re.DOTALL))
    return tmp_path


def shortened(words):
    """The command with few cases and a small training; what it names stays."""
    words = [word.replace("$series", "SERIES").replace("$out", "OUT") for word in words]
    words = ["small-phantom" if word == "phantom" else word for word in words]
    for option, value in SHORT.items() if "simulate" in words else ():
        if option in words:
            words[words.index(option) + 1] = value
        elif "--config" not in words:
            words += [option, value]
    if "--scheduler" in words:  # a real one is lost and found in tests/ctmar/test_batch.py
        del words[words.index("--scheduler") : words.index("--scheduler") + 2]
    if "serve" in words and "--check" not in words:  # it would go on for ever: tests/ctmar/pacs
        words.append("--check")
    if "simulate" in words and "--implants" in words:
        words[words.index("--implants") + 1] = "hip,clip"
    if "train" in words and "--config" not in words:
        words += ["--config", "small.toml"]
    return words


READERS = (
    lambda values: settings_from(TrainingSettings, values),
    lambda values: settings_from(CorrectionSettings, with_preset(values, "auto")),
    lambda values: read_request(values, sources=["phantom"], overrides={}, scan={}),
    lambda values: settings_from(ServeSettings, values),
)


def several_processes(words):
    """`torchrun`, which starts ctmar, with two processes."""
    program = f"-m torch.distributed.run --nproc-per-node 2 --no-python {sys.executable} -P -m ctmar"
    result = subprocess.run(
        [sys.executable, *program.split(), *words[words.index("ctmar") + 1 :]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def run(words):
    """The program in this process."""
    cli.app(words, prog_name="ctmar", standalone_mode=False)


@pytest.mark.slow
@pytest.mark.parametrize("document", [one for one in DOCUMENTS if commands(one)])
def test_commands_run(document, sandbox):
    Path("phantom").rename("small-phantom")
    had_workers = False
    for line in commands(document):
        if not line.startswith(("ctmar ", "torchrun ")):
            continue  # the rest of a shell script, which the test of exit codes runs
        words = shortened(shlex.split(line.split(" > ")[0]))
        if "--workers" in words:  # half a minute to start: once a document; those of simulate in test_interruption.py
            if "simulate" in words or had_workers:
                words[words.index("--workers") + 1] = "1"
            else:
                had_workers = True
        if "--preview" in words:
            words[words.index("--out") + 1] += "-preview"
        made = Path(words[words.index("--out") + 1]) if "--out" in words else None
        assert made is None or not made.is_absolute()
        if made is not None and made.exists():
            shutil.rmtree(made) if made.is_dir() else made.unlink()
            made.with_suffix(".json").unlink(missing_ok=True)
            shutil.rmtree(made.with_suffix(".training"), ignore_errors=True)
        if words[0] == "torchrun":
            several_processes(words)
            continue
        try:
            run(words[1:])
        except CtmarError as error:
            pytest.fail(f"{line}: {error}")
        if made is not None and "--dry-run" not in words:
            assert made.exists(), line


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if blocks(one, "toml")])
def test_settings_are_read(document):
    """Every block of TOML is a file that one of the commands takes."""
    for block in blocks(document, "toml"):
        values = tomllib.loads(block)
        taken = 0
        for read in READERS:
            with suppress(UsageError):
                read(dict(values))
                taken += 1
        assert taken, block


def test_the_script_of_exit_codes_runs(sandbox):
    (script,) = blocks("docs/exit-codes.md", "bash")
    Path("ctmar.sh").write_text(script)
    bin_ = Path("bin")
    bin_.mkdir()
    (bin_ / "ctmar").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m ctmar "$@"\n')
    (bin_ / "ctmar").chmod(0o755)
    for series, out, words in (("SERIES", "OUT", "corrected"), ("stem.png", "OTHER", "needs a look")):
        result = subprocess.run(
            ["/bin/sh", "ctmar.sh"],
            env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "series": series, "out": out},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert words in result.stdout


def arrays():
    """What code in documents calls arrays of the reader's."""
    image_hu = small_volumes()[0][1]
    sinogram = Projector(GEOMETRY, GRID, device="cpu").forward(hu_to_mu(image_hu[None], MU_WATER_PER_MM))[0]
    metal = image_hu > 2500
    return {"uncorrected_hu": image_hu, "sinogram": sinogram, "metal": metal, "geometry": GEOMETRY, "grid": GRID}


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if blocks(one, "python") and one not in WITH_THEIR_OWN])
def test_python_runs(document, sandbox):
    names = arrays()
    if document == "docs/case-format.md":  # what it writes has the size of a clinical scan
        names |= {"sinogram": np.zeros((984, 920)), "metal": np.zeros((512, 512))}
    if document == "docs/evaluation.md":
        run(["evaluate", "db", "--out", "results", "--device", "cpu"])
    for code in blocks(document, "python"):
        exec(compile(code, document, "exec"), names)
