"""Small valid inputs of every kind that `ctmar correct` takes, or that lie beside it: seeds for the fuzzer."""

from __future__ import annotations

import gc
import io
import tempfile
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RTStructureSetStorage,
)

from ctmar.dicom.segment import metal_segmentation
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.synthetic import ct_dataset, save, write_ct_series
from tests.ctmar.small import MARKER, write_foreign_case

SIDE = 24
COMPRESSED = ("JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless")
"""As gdcm calls them."""

PRIVATE_TEXT = f"{MARKER} private"


@dataclass(frozen=True)
class Seed:
    """Files by name, the one that is given as the source ("" is their folder), and flags.

    A flag that begins with "@" names one of the files; files named ``beside/...`` lie outside of the source.
    """

    files: dict[str, bytes]
    source: str = ""
    flags: tuple[str, ...] = field(default=())


def volume_hu(slices: int = 2, side: int = SIDE) -> np.ndarray:
    """A disc of water in air with a pin of metal, and the second slice without the pin."""
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    image = np.where(np.hypot(rows, cols) < side / 2 - 2, 0.0, -1000.0)
    dirty = image.copy()
    dirty[np.hypot(rows - 3, cols) < 1.3] = 2900
    return np.stack([image if k == 1 else dirty for k in range(slices)])


def make_seeds() -> dict[str, Seed]:
    """All seeds by name; the same on every call."""
    seeds: dict[str, Seed] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = _series(folder / "plain", ExplicitVRLittleEndian)
        seeds["explicit"] = Seed(plain)
        seeds["all-outputs"] = Seed(plain, flags=("--seg", "--report", "--difference", "--preview"))
        seeds["implicit"] = Seed(_series(folder / "implicit", ImplicitVRLittleEndian))
        seeds["big-endian"] = Seed(_series(folder / "big", ExplicitVRBigEndian))
        seeds["deflated"] = Seed(_series(folder / "deflated", DeflatedExplicitVRLittleEndian))
        seeds["no-preamble"] = Seed({k: v[132:] for k, v in plain.items()})
        for syntax in COMPRESSED:
            seeds[syntax] = Seed({k: _compressed(v, syntax, folder) for k, v in plain.items()})
        seeds["jpeg-baseline"] = Seed({k: _jpeg_baseline(v) for k, v in plain.items()})
        seeds["zip"] = Seed({"source.zip": packed(plain)}, source="source.zip")
        enhanced = _bytes(enhanced_dataset())
        seeds["enhanced"] = Seed({"enhanced.dcm": enhanced})
        seeds["enhanced-file"] = Seed({"enhanced.dcm": enhanced}, source="enhanced.dcm")
        seeds["dicomdir"] = Seed(_with_dicomdir(folder / "plain", folder / "set"))
        seeds["dicomdir-file"] = Seed(seeds["dicomdir"].files, source="DICOMDIR")
        seg, rtstruct = _segmentation(folder / "plain"), _bytes(structure_set())
        seeds["mixed"] = Seed({**plain, "seg.dcm": seg, "rtstruct.dcm": rtstruct, "enhanced.dcm": enhanced})
        masks = {"seg.dcm": seg, "rtstruct.dcm": rtstruct, **_mask_files(folder)}
        for mask, content in masks.items():
            images = plain if mask != "mask.png" else {"0001.dcm": plain["0001.dcm"]}
            files = {**images, f"beside/{mask}": content}
            seeds[f"mask-{mask}"] = Seed(files, flags=("--mask", f"@beside/{mask}"))
        for volume in ("volume.nii", "volume.nii.gz"):
            seeds[volume] = Seed({volume: _nifti(folder / volume, volume_hu().astype(np.int16))}, source=volume)
        write_foreign_case(folder / "case.h5")
        seeds["case"] = Seed({"case.h5": _small_case(folder / "case.h5")}, source="case.h5")
        seeds["cases"] = Seed({f"{k}.h5": seeds["case"].files["case.h5"] for k in "ab"})
    return seeds


def odd_seeds(folder: Path) -> dict[str, Seed]:
    """Files of a folder of odd real ones, each by itself."""
    return {f"odd-{path.name}": Seed({path.name: path.read_bytes()}) for path in sorted(folder.rglob("*CT*"))}


def packed(files: dict[str, bytes]) -> bytes:
    """A zip archive of files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def enhanced_dataset(slices: int = 2) -> Dataset:
    """An Enhanced CT Image with what a reader needs of it: shared and per-frame functional groups."""
    volume = volume_hu(slices)
    ds = ct_dataset(volume[0])
    frames = np.stack([np.frombuffer(ct_dataset(image).PixelData, "<u2").reshape(SIDE, SIDE) for image in volume])
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = EnhancedCTImageStorage, "2.25.9001", "2.25.9000"
    ds.PatientName, ds.PatientID = f"{MARKER}^NAME", MARKER
    ds.NumberOfFrames = slices
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
        delattr(ds, keyword)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[1, 1], SliceThickness=2)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelValueTransformationSequence = [_item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")]
    shared.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[-12, -12, 2.0 * k])],
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])],
        )
        for k in range(slices)
    )
    ds.PixelData = frames.tobytes()
    return ds


def structure_set(slices: int = 2) -> Dataset:
    """An RT Structure Set with one square contour called Metal on every slice of the plain series."""
    ds = ct_dataset(np.zeros((2, 2)))
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, keyword)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = RTStructureSetStorage, "2.25.8001", "2.25.8000"
    ds.Modality, ds.StructureSetLabel = "RTSTRUCT", "Metal"
    ds.PatientName, ds.PatientID = f"{MARKER}^NAME", MARKER
    ds.StructureSetROISequence = [_item(ROINumber=1, ROIName="Metal", ReferencedFrameOfReferenceUID="2.25.3001")]
    contours = []
    for k in range(slices):
        square = [v for x, y in ((-2, 1), (2, 1), (2, 5), (-2, 5)) for v in (x, y, 2.0 * k)]
        contours.append(_item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4, ContourData=square))
    ds.ROIContourSequence = [_item(ReferencedROINumber=1, ContourSequence=contours)]
    ds.RTROIObservationsSequence = [_item(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="")]
    return ds


def _series(folder: Path, syntax: pydicom.uid.UID) -> dict[str, bytes]:
    files = write_ct_series(folder, volume_hu(), syntax=syntax)
    for file in files:
        ds = pydicom.dcmread(file)
        ds.PatientName, ds.PatientID = f"{MARKER}^NAME", MARKER
        ds.private_block(0x0009, "CTMAR TEST", create=True).add_new(0x01, "LO", PRIVATE_TEXT)
        ds.add_new("PixelPaddingValue", "US", 0)
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        save(ds, file, syntax=syntax)
    return {file.name: file.read_bytes() for file in files}


def _compressed(content: bytes, syntax: str, folder: Path) -> bytes:
    import gdcm

    before, after = folder / "before.dcm", folder / "after.dcm"
    before.write_bytes(content)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(before))
    reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(after))
    if not change.Change():
        raise RuntimeError(f"gdcm cannot write {syntax}")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    return after.read_bytes()


def _jpeg_baseline(content: bytes) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(content))
    picture = io.BytesIO()
    Image.fromarray((ds.pixel_array >> 4).astype(np.uint8)).save(picture, "JPEG")
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.RescaleSlope = 16
    del ds.PixelPaddingValue
    ds.PixelData = encapsulate([picture.getvalue()])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _segmentation(plain: Path) -> bytes:
    (series,) = choose_series(find_series(plain))
    images = [pydicom.dcmread(s.file.path) for s in series.slices]
    return _bytes(metal_segmentation(images, volume_hu() > 2500, version="1.0"))


def _with_dicomdir(plain: Path, folder: Path) -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the temporary folder that a file set leaves to the garbage collector
        files = FileSet()
        for path in sorted(plain.iterdir()):
            files.add(path)
        files.write(folder)
        del files
        gc.collect()
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _mask_files(folder: Path) -> dict[str, bytes]:
    mask = volume_hu() > 2500
    array, picture = io.BytesIO(), io.BytesIO()
    np.save(array, mask)
    Image.fromarray(mask[0].astype(np.uint8) * 255).save(picture, "PNG")
    files = {"mask.npy": array.getvalue(), "mask.png": picture.getvalue()}
    for name in ("mask.nii", "mask.nii.gz"):
        files[name] = _nifti(folder / name, mask.astype(np.uint8))
    return files


def _nifti(path: Path, volume: np.ndarray) -> bytes:
    import nibabel

    # the patient's right is the first column and anterior the first row: x and y of DICOM with their signs changed
    affine = np.array([[-1.0, 0, 0, 12], [0, -1.0, 0, 12], [0, 0, 2.0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(volume.T.copy(), affine), path)
    return path.read_bytes()


def _small_case(path: Path) -> bytes:
    """The case with its sinogram compressed, as ctmar itself writes it: damage then meets the decompressor too."""
    stream = io.BytesIO()
    with h5py.File(path) as old, h5py.File(stream, "w") as new:
        new.attrs.update(old.attrs)
        new.create_dataset("sinogram/metal", data=old["sinogram/metal"][()], compression="gzip", shuffle=True)
        new.create_dataset("image/uncorrected", data=np.zeros((48, 48), np.float32))
    return stream.getvalue()


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _bytes(ds: Dataset) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        return save(ds, Path(name) / "file.dcm").read_bytes()
