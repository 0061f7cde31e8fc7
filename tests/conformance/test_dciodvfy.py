"""dciodvfy and dcentvfy (dicom3tools) and dcmdump (dcmtk) on what `ctmar.dicom` writes."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ctmar.database import Case, write_case
from ctmar.dicom.derived import DerivedSeries, derive, new_uid, write_dataset
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.segment import metal_segmentation
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.simulated import write_case_dicom
from ctmar.simulation_settings import SimulationSettings
from data_sim.geometry import FanArc, ImageGrid
from tests.ctmar.dicom.build import ramp_hu, write_ct_series

PROGRAMS = ("dciodvfy", "dcentvfy", "dcmdump")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
REAL = [
    "odd/transfer-syntaxes/CT1_J2KR",
    "odd/transfer-syntaxes/CT2_J2KR",
    "odd/transfer-syntaxes/CTImage.dcm",
    "odd/transfer-syntaxes/CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm",
    "odd/transfer-syntaxes/CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
    "odd/ge-head-gantry-tilt/01.dcm",
    "clean/kits-00072-abdomen/0001.dcm",
    "clean/lidc-0001-chest/0001.dcm",
    "clean/lidc-0314-chest/0001.dcm",
    "clean/tcga-09-2043-pelvis-abdomen/0001.dcm",
    "clean/tcga-e3-a3e5-shoulder-jaw-skull/0001.dcm",
    "clean/tcga-lung-singles/0004.dcm",
    "metal/acrin-001-port-and-fillings/0090.dcm",
    "metal/lungfcp-0001-sternal-wires/0005.dcm",
]


def output(*command: object) -> str:
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def errors(path: Path) -> Counter[str]:
    return Counter(line for line in output("dciodvfy", "-new", path).splitlines() if line.startswith("Error"))


def derive_all(source: Path, folder: Path) -> list[Path]:
    """Every other slice changed, the others carried through."""
    (series,) = choose_series(find_series(source))
    new = DerivedSeries(
        uid=new_uid(),
        description="reduced",
        method="nmar2",
        version="1.0",
        created=datetime.now(UTC),
        model_name="m",
        model_hash="0" * 64,
    )
    folder.mkdir(exist_ok=True)
    for k, slice_file in enumerate(series.slices):
        image = read_slice(slice_file)
        corrected = np.minimum(image.image_hu, 500) if k % 2 == 0 else None
        write_dataset(derive(image, corrected, series=new), folder / f"{k:04d}.dcm")
    return sorted(folder.iterdir())


def test_synthetic_series_and_its_correction_are_without_error(tmp_path: Path) -> None:
    sources = write_ct_series(tmp_path / "source", ramp_hu(3))
    derived = derive_all(tmp_path / "source", tmp_path / "derived")
    assert len(derived) == 3
    for path in sources + derived:
        assert not errors(path)
    assert output("dcentvfy", *sources, *derived) == ""


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the shared CT data beside the project")
@pytest.mark.parametrize("name", REAL)
def test_no_error_that_the_source_does_not_have(tmp_path: Path, name: str) -> None:
    source = SHARED_DATA / name
    (derived,) = derive_all(source, tmp_path / "derived")
    assert not errors(derived) - errors(source)
    dump = output("dcmdump", "-q", derived)
    assert "DerivationDescription" in dump
    assert "E:" not in dump
    assert "W:" not in dump


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the shared CT data beside the project")
@pytest.mark.parametrize("name", ["metal/lungfcp-0001-sternal-wires", "odd/ge-head-gantry-tilt"])
def test_whole_series_is_consistent(tmp_path: Path, name: str) -> None:
    derived = derive_all(SHARED_DATA / name, tmp_path / "derived")
    assert len(derived) > 20
    assert output("dcentvfy", *derived) == ""


def test_segmentation_is_without_error(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    write_ct_series(tmp_path / "source", ramp_hu(3))
    (series,) = choose_series(find_series(tmp_path / "source"))
    images = [read_slice(s).dataset for s in series.slices]
    masks = ramp_hu(3) > 400
    write_dataset(metal_segmentation(images, masks, version="1.0"), tmp_path / "seg.dcm")
    assert not errors(tmp_path / "seg.dcm")
    assert output("dcentvfy", tmp_path / "seg.dcm", *(tmp_path / "source").iterdir()) == ""


def test_simulated_cases_are_without_error(tmp_path: Path) -> None:
    """The three series of a case; that no date is given is no error."""
    grid, geometry = ImageGrid(32, 32, 0.8), FanArc(views=4, bins=8)
    image = ramp_hu(1, size=32)[0].astype(np.float32)
    case = Case(
        geometry=geometry,
        grid=grid,
        mu_water_per_mm=0.0192,
        seed=1,
        implant="hip",
        material="ti",
        patient="p-0123456789ab",
        source="phantom",
        sinogram_metal=np.zeros(geometry.shape, np.float32),
        mask_metal=image > 400,
        images={"reference": image},
        dicom_images={"uncorrected": image},
    )
    for number in (1, 2):
        file = tmp_path / f"case-{number:06d}.h5"
        write_case(file, case)
        write_case_dicom(file, tmp_path / "dicom" / file.stem, SimulationSettings(seed=1))
    written = sorted((tmp_path / "dicom").rglob("*.dcm"))
    assert len(written) == 6
    for path in written:
        assert not errors(path)
        assert "E:" not in output("dcmdump", "-q", path)
    assert output("dcentvfy", *written) == ""
