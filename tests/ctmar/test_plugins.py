"""A user's own methods and networks, from Python and from the command line."""

import json
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

import ctmar
from ctmar import network
from ctmar.cli import app
from ctmar.config import UseSettings
from ctmar.correction_settings import CorrectionSettings
from ctmar.errors import UsageError
from ctmar.method_names import known_methods, needs_network
from ctmar.plugins import load_plugins
from ctmar.weights import read_card
from data_sim.projection import Projector
from tests.ctmar.small import GEOMETRY, GRID, write_small_series
from tests.ctmar.toy_database import write_toy_database

PLUGIN = """
import torch
import ctmar

def halfway(correction):
    return (correction.image("li") + correction.image("uncorrected")) / 2

class Mean(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weights = torch.nn.Conv2d(channels, 1, 1)

    def forward(self, images):
        return self.weights(images)

ctmar.register_method("halfway", halfway)
ctmar.register_architecture("mean", lambda names: Mean(len(names)))
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.usefixtures("small_fan")
def test_a_method_from_the_command_line(tmp_path, volumes, plugin):
    write_small_series(tmp_path / "series", volumes[0])
    common = ("correct", tmp_path / "series", "--whole", "--device", "cpu")
    run("--plugin", plugin, *common, "--method", "halfway", "--out", tmp_path / "half")
    result = json.loads((tmp_path / "half" / "report.json").read_text())
    assert (result["method"], result["model"]) == ("halfway", None)
    settings = {"adaptive": False, "device": "cpu"}
    li, half = (
        ctmar.correct(volumes[0], CorrectionSettings(method, **settings), pixel_mm=1.0, slice_mm=2.0)
        for method in ("li", "halfway")
    )
    inside = volumes[0][1] > -1024
    np.testing.assert_allclose(half[1][inside], (li[1] + volumes[0][1])[inside] / 2, atol=0.01)
    ds = pydicom.dcmread(tmp_path / "half" / "0002.dcm")
    written = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    np.testing.assert_allclose(written[inside], np.maximum(half[1], -1024)[inside], atol=2)


def test_a_network_from_the_command_line(tmp_path, plugin):
    write_toy_database(tmp_path / "db")
    settings = tmp_path / "small.toml"
    settings.write_text("patches = 40\npatch = 32\nepochs = 1\n")
    out = tmp_path / "mean.safetensors"
    run("--plugin", plugin, "train", tmp_path / "db", "--out", out, "--arch", "mean", "--config", settings)
    card = read_card(out)
    assert card.arch == "mean"
    run("--plugin", plugin, "evaluate", tmp_path / "db", "--out", tmp_path / "results", "--model", out)
    rows = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert {"halfway", "cnn-mar", "limit"} <= {row["method"] for row in rows}


def test_a_plain_network_begins_as_the_seed_says():
    network.register_architecture("plain", lambda names: torch.nn.Conv2d(len(names), 1, 3, padding=1))
    before = torch.random.get_rng_state()
    one, same, other = (network.untrained("plain", ("uncorrected", "li"), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("name", ["li", "limit", "reference", "Mine", "my method", "-x", ""])
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="name"):
        ctmar.register_method(name, lambda correction: correction.image("li"))


def test_our_architectures_stay():
    with pytest.raises(ValueError, match="of ctmar's own"):
        ctmar.register_architecture("unet", lambda names: torch.nn.Identity())


def test_a_method_that_asks_for_a_network():
    """And whose images are not taken for those of another network."""
    ctmar.register_method("asks", lambda correction: correction.image("cnn") + 1, network=True)
    assert needs_network("asks")

    class Constant:
        channels, use, first = ("uncorrected",), UseSettings(), None

        def __init__(self, hu):
            self.hu = hu

        def __call__(self, images_hu, metal):
            return np.full(metal.shape, self.hu, np.float32)

    flat = np.zeros((1, *GRID.shape), np.float32)
    projector = Projector(GEOMETRY, GRID, device="cpu")
    options = {"mu_water_per_mm": 0.02, "restorer": Constant(10)}
    correction = ctmar.Correction(projector.forward(flat), flat, flat > 0, projector, **options)
    assert correction.image("asks").mean() == 11
    assert correction.using(Constant(20)).image("asks").mean() == 21


def test_images_of_another_shape_are_refused(volumes):
    ctmar.register_method("small", lambda correction: correction.uncorrected_hu[:, ::2])
    with pytest.raises(UsageError, match="small gives images"):
        ctmar.correct(volumes[0][1], CorrectionSettings("small", device="cpu"), pixel_mm=1.0)


def test_a_method_that_fails_says_where(volumes):
    ctmar.register_method("broken", lambda correction: 1 / 0)
    with pytest.raises(UsageError, match=r"broken failed \(ZeroDivisionError at test_plugins.py:\d+"):
        ctmar.correct(volumes[0][1], CorrectionSettings("broken", device="cpu"), pixel_mm=1.0)


def test_a_plugin_may_hold_dataclasses(tmp_path):
    path = tmp_path / "torch.py"  # and hides no module of that name
    path.write_text(
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    )
    load_plugins([str(path)])
    assert sys.modules["torch"] is torch
    assert sys.modules.pop("ctmar_plugin_torch").A(3).x == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise SystemExit(0)", "SystemExit"),
        (None, "cannot be loaded"),
        ("import nosuchmodule", "nosuchmodule"),
        ("1/0", "ZeroDivisionError"),
        ("(", "Syntax"),
    ],
)
def test_plugins_that_fail(tmp_path, content, message):
    path = tmp_path / "broken.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_plugins([str(path)])
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_plugins(["no.such.module"])


def test_installed_packages_are_found(tmp_path, monkeypatch):
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    Path(info, "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    Path(info, "entry_points.txt").write_text("[ctmar.plugins]\nmine = found_by_ctmar\n")
    (tmp_path / "found_by_ctmar.py").write_text(
        "import ctmar\nctmar.register_method('found', lambda c: c.image('li'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "found_by_ctmar", raising=False)
    load_plugins()
    assert "found" in known_methods()
