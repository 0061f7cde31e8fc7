"""Enhanced multi-frame CT objects made from arrays: what `ctmar.dicom.synthetic` is for single images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from ctmar.dicom.synthetic import SERIES_UID, ct_dataset

_DIMENSIONS_UID = "2.25.4001"

_OF_THE_FRAMES = (
    "KVP", "SliceThickness", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth", "BodyPartExamined", "AcquisitionDate",
    "AcquisitionTime",
)  # fmt: skip
"""What a classic image has at the top, and an enhanced one in functional groups."""


def enhanced_ct_dataset(
    volume_hu: ArrayLike,
    *,
    z_mm: Sequence[float] | None = None,
    spacing_mm: float = 2.0,
    pixel_mm: float | tuple[float, float] = 1.0,
    slope: float = 1.0,
    intercept: float = -1024.0,
    tilt_deg: float = 0.0,
    stacks: Sequence[str] | None = None,
    times: Sequence[int] | None = None,
    series_uid: str = SERIES_UID,
) -> Dataset:
    """One Enhanced CT object (PS3.3 section A.38) with a frame for every image of (slice, row, column) HU.

    Parameters
    ----------
    z_mm
        Positions of the frames; evenly spaced by `spacing_mm` unless given.
    stacks, times
        Stack ID and Temporal Position Index of every frame.
    """
    volume = np.asarray(volume_hu, float)
    positions = [spacing_mm * k for k in range(len(volume))] if z_mm is None else list(z_mm)
    images = [
        ct_dataset(
            image,
            z_mm=z,
            number=1,
            series_uid=series_uid,
            pixel_mm=pixel_mm,
            thickness_mm=spacing_mm,
            slope=slope,
            intercept=intercept,
        )
        for image, z in zip(volume, positions, strict=True)
    ]
    first, ds = images[0], ct_dataset(volume[0], series_uid=series_uid)
    for keyword in _OF_THE_FRAMES:
        delattr(ds, keyword)
    ds.SOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID = f"{series_uid}.100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.AcquisitionDateTime, ds.AcquisitionDuration = "20240102101112", 1000.0
    ds.ContentQualification = "RESEARCH"
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    ds.AcquisitionContextSequence = []
    ds.NumberOfFrames = len(volume)
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=_DIMENSIONS_UID)]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=_DIMENSIONS_UID, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111
        )
        for pointer in (0x00209056, 0x00209057)
    ]
    ds.SharedFunctionalGroupsSequence = [_shared(first, tilt_deg)]
    ds.PerFrameFunctionalGroupsSequence = [
        _per_frame(image, k, None if stacks is None else stacks[k], None if times is None else times[k])
        for k, image in enumerate(images)
    ]
    ds.add_new("PixelData", "OW", b"".join(image.PixelData for image in images))
    return ds


def _shared(image: Dataset, tilt_deg: float) -> Dataset:
    return _item(
        PixelMeasuresSequence=[_item(PixelSpacing=image.PixelSpacing, SliceThickness=image.SliceThickness)],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=image.ImageOrientationPatient)],
        FrameAnatomySequence=[
            _item(
                FrameLaterality="U",
                AnatomicRegionSequence=[
                    _item(CodeValue="816092008", CodingSchemeDesignator="SCT", CodeMeaning="Pelvis")
                ],
            )
        ],
        CTImageFrameTypeSequence=[
            _item(
                FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        IrradiationEventIdentificationSequence=[_item(IrradiationEventUID="2.25.5001")],
        CTAcquisitionTypeSequence=[
            _item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO"),
        ],
        CTAcquisitionDetailsSequence=[
            _item(
                RotationDirection="CW",
                RevolutionTime=0.5,
                SingleCollimationWidth=0.625,
                TotalCollimationWidth=40.0,
                TableHeight=150.0,
                GantryDetectorTilt=tilt_deg,
                DataCollectionDiameter=500.0,
            )
        ],
        CTTableDynamicsSequence=[_item(TableSpeed=40.0, TableFeedPerRotation=40.0, SpiralPitchFactor=1.0)],
        CTGeometrySequence=[_item(DistanceSourceToDetector=950.0, DistanceSourceToDataCollectionCenter=540.0)],
        CTReconstructionSequence=[
            _item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel="STANDARD",
                ConvolutionKernelGroup="SOFT_TISSUE",
                ReconstructionDiameter=float(image.PixelSpacing[0] * image.Rows),
                ReconstructionPixelSpacing=[float(v) for v in image.PixelSpacing],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            _item(
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=250.4,
                ExposureInmAs=125.2,
                ExposureModulationType="NONE",
                CTDIvol=8.0,
                CTDIPhantomTypeCodeSequence=[
                    _item(CodeValue="113691", CodingSchemeDesignator="DCM", CodeMeaning="IEC Body Dosimetry Phantom")
                ],
            )
        ],
        CTXRayDetailsSequence=[
            _item(
                KVP=120.0,
                FocalSpots=[1.2],
                FilterType="BUTTERFLY",
                FilterMaterial="ALUMINUM",
                CalciumScoringMassFactorDevice=[1.0, 1.0, 1.0],
            )
        ],
        PixelValueTransformationSequence=[
            _item(RescaleIntercept=image.RescaleIntercept, RescaleSlope=image.RescaleSlope, RescaleType="HU")
        ],
        FrameVOILUTSequence=[_item(WindowCenter=image.WindowCenter, WindowWidth=image.WindowWidth)],
    )


def _per_frame(image: Dataset, index: int, stack: str | None, time: int | None) -> Dataset:
    content = _item(
        FrameAcquisitionNumber=2,
        FrameReferenceDateTime=f"202401021011{12 + index % 48:02d}",
        FrameAcquisitionDateTime=f"202401021011{12 + index % 48:02d}.25",
        FrameAcquisitionDuration=500.0,
        DimensionIndexValues=[1, index + 1],
        StackID=stack or "1",
        InStackPositionNumber=index + 1,
    )
    if time is not None:
        content.TemporalPositionIndex = time
    z_mm = float(image.ImagePositionPatient[2])
    return _item(
        FrameContentSequence=[content],
        PlanePositionSequence=[_item(ImagePositionPatient=image.ImagePositionPatient)],
        CTPositionSequence=[
            _item(
                TablePosition=z_mm,
                DataCollectionCenterPatient=[0.0, 0.0, z_mm],
                ReconstructionTargetCenterPatient=[0.0, 0.0, z_mm],
            )
        ],
    )


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
