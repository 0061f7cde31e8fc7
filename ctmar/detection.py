from __future__ import annotations

from dataclasses import dataclass

from ctmar.segmentation import metal_mask


@dataclass(frozen=True)
class DetectionSettings:
    threshold_hu: float | None = None


class Detection:
    def __init__(self, masks):
        self._m = masks

    def __getitem__(self, i):
        return self._m[i]

    def summary(self):
        return {}


def detect(images, along_normal_mm, settings):
    return Detection(
        [
            None
            if i is None
            else metal_mask(i.image_hu, threshold_hu=settings.threshold_hu or 2500.0, pixel_mm=i.pixel_mm[0])
            for i in images
        ]
    )
Detection.warnings = ()
