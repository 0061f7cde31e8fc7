"""The shipped model on real hips of a patient that it has never seen."""

from pathlib import Path

import numpy as np
import pytest

from ctmar.methods import Correction
from ctmar.metrics import body_mask, evaluate_image
from ctmar.restorer import NetworkRestorer
from ctmar.segmentation import dilate, metal_mask
from ctmar.sources import find_slices
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc
from data_sim.placement import place
from data_sim.projection import Projector
from data_sim.scanner import simulate_slices
from data_sim.units import MU_WATER_PER_MM

SOURCE = Path(__file__).parents[3] / "shared/data/clean/acrin-001-body"


@pytest.fixture(scope="module")
def hips():
    """Two slices that an iron hip prosthesis fits, the prostheses, the grid, and the patient."""
    if not SOURCE.is_dir():
        pytest.skip("needs the real slices of ../shared/data")
    rng = np.random.default_rng(5)
    found = []
    for source in find_slices([str(SOURCE)])[0]:
        image_hu, grid, patient = source.load()
        pieces = place("hip", image_hu, grid, rng, ["fe"])
        if pieces:
            found.append((image_hu, pieces))
        if len(found) == 2:
            break
    assert len(found) == 2
    return np.stack([image for image, _ in found]), [pieces for _, pieces in found], grid, patient


@pytest.mark.slow
def test_ordering_of_the_methods(hips):
    images_hu, implants, grid, patient = hips
    restorer = NetworkRestorer(device="cpu")
    assert patient not in restorer.card.patients_seen

    geometry = FanArc()
    rngs = [np.random.default_rng(k) for k in range(len(implants))]
    scan = simulate_slices(images_hu, grid, implants, rngs, geometry=geometry, settings=ScanSettings(), device="cpu")
    metal = scan.metal | (dilate(scan.metal, 3) & metal_mask(scan.uncorrected_hu, pixel_mm=grid.pixel_mm))
    projector = Projector(geometry, grid, device="cpu")
    shared = {"mu_water_per_mm": MU_WATER_PER_MM, "restorer": restorer}
    paths = {
        "raw": Correction(scan.sinogram_metal, scan.uncorrected_hu, metal, projector, **shared),
        "dicom": Correction.of_image(scan.stored_hu, metal, projector, **shared),
    }
    for path, correction in paths.items():
        scores = {}
        for method in ("uncorrected", "li", "nmar2", "cnn-mar"):
            each = [
                evaluate_image(image, reference, mask, body_mask(reference))["rmse_body_hu"]
                for image, reference, mask in zip(correction.image(method), scan.reference_hu, metal, strict=True)
            ]
            scores[method] = float(np.mean(each))
        assert scores["uncorrected"] > scores["li"] > scores["nmar2"] > scores["cnn-mar"], (path, scores)
