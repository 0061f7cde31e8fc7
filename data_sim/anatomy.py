"""Landmarks found in a single axial CT slice: body, bones, femoral heads, vertebra, teeth, airway.

Threshold and shape rules, no learning: they need only say where metal could be, and may decline. Slices are
seen as DICOM shows a supine patient: anterior up (+y), so posterior is -y. All positions are in mm in the
frame of the `ImageGrid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from data_sim.geometry import ImageGrid
from data_sim.morphology import depth_mm, elongation, grown, shrunk

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
XY = tuple[float, float]

BODY_HU = -300.0
BONE_HU = 200.0
DENSE_HU = 1200.0


def body_mask(image_hu: Image, grid: ImageGrid) -> Mask:
    """The patient without the table: the largest piece above -300 HU, filled, and others like it (a second leg).

    Pieces are cut apart where they meet by less than 8 mm, which takes off the table and clothes. One like the
    largest has at least 0.6 of its area and 1 cm2 of bone, which the table lacks.
    """
    tissue = np.asarray(image_hu) > BODY_HU
    core, count = ndi.label(shrunk(tissue, 4.0, grid.pixel_mm))
    if not count:
        return np.zeros(grid.shape, bool)
    sizes = np.bincount(core.ravel())[1:]
    bone = np.bincount(core[np.asarray(image_hu) > BONE_HU], minlength=count + 1)[1:]
    patient = (sizes >= 0.6 * sizes.max()) & (bone * grid.pixel_mm**2 > 100)
    patient[np.argmax(sizes)] = True
    kept = np.concatenate([[False], patient])[core]
    return np.asarray(ndi.binary_fill_holes(tissue & grown(kept, 4.5, grid.pixel_mm)))


@dataclass(frozen=True)
class RoundBone:
    """A circle inscribed in bone."""

    x_mm: float
    y_mm: float
    radius_mm: float


@dataclass(frozen=True)
class Vertebra:
    """A vertebral canal with the vertebral body in front of it.

    `closed` where the arch is whole in this slice, so that there are pedicles; `body_radius_mm` is that of
    the largest circle in the vertebral body.
    """

    canal: Mask
    x_mm: float
    y_mm: float
    half_width_mm: float
    half_height_mm: float
    body_radius_mm: float
    closed: bool


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What the recipes ask of a slice; each landmark is found when first asked for.

    Parameters
    ----------
    image_hu : float (rows, cols)
        HU.
    grid : ImageGrid
        Its grid.
    """

    image_hu: Image
    grid: ImageGrid

    @cached_property
    def smooth_hu(self) -> Image:
        """The slice after a Gaussian of 0.8 mm, which noise thresholds need; padding counts as air."""
        clipped = np.maximum(np.asarray(self.image_hu, np.float32), -1024)
        return np.asarray(ndi.gaussian_filter(clipped, 0.8 / self.grid.pixel_mm))

    @cached_property
    def body(self) -> Mask:
        """The patient."""
        return body_mask(self.smooth_hu, self.grid)

    @cached_property
    def extent_mm(self) -> tuple[float, float, float, float]:
        """Smallest and largest x and y of the body; zeros where there is none."""
        rows, cols = np.nonzero(self.body.any(axis=1))[0], np.nonzero(self.body.any(axis=0))[0]
        if not rows.size:
            return 0.0, 0.0, 0.0, 0.0
        x, y = self.grid.x_mm(), self.grid.y_mm()
        return float(x[cols[0]]), float(x[cols[-1]]), float(y[rows[-1]]), float(y[rows[0]])

    @property
    def width_mm(self) -> float:
        """From the patient's right to left."""
        return self.extent_mm[1] - self.extent_mm[0]

    @property
    def midline_mm(self) -> float:
        """Position x of the vertebral canal, else of the body's middle."""
        found = self.vertebra
        return found.x_mm if found else (self.extent_mm[0] + self.extent_mm[1]) / 2

    @cached_property
    def bone(self) -> Mask:
        """Bone above 200 HU."""
        return np.asarray((self.smooth_hu > BONE_HU) & self.body)

    @cached_property
    def whole_bone(self) -> Mask:
        """Bone with its marrow: holes up to 900 mm2 filled, so that cavities like the skull's stay."""
        closed = shrunk(grown(self.bone, 1.5, self.grid.pixel_mm), 1.5, self.grid.pixel_mm) | self.bone
        holes, count = ndi.label(ndi.binary_fill_holes(closed) & ~closed)
        if count:
            small = np.bincount(holes.ravel()) * self.grid.pixel_mm**2 < 900
            small[0] = False
            closed |= small[holes]
        return np.asarray(closed)

    @cached_property
    def air(self) -> Mask:
        """Air and lung inside the body."""
        return np.asarray((self.smooth_hu < -500) & shrunk(self.body, 3.0, self.grid.pixel_mm))

    def xy(self, row: float | np.integer, col: float | np.integer) -> XY:
        """Position of a pixel index."""
        return float(self.grid.x_mm()[int(col)]), float(self.grid.y_mm()[int(row)])

    # --------------------------------------------------------------------------------------------- spine

    @cached_property
    def cranium(self) -> bool:
        """Whether bone walls in more than 2500 mm2: a skull with its brain."""
        labels, count = ndi.label(ndi.binary_fill_holes(self.bone) & ~self.bone)
        return bool(count and np.bincount(labels.ravel())[1:].max() * self.grid.pixel_mm**2 > 2500)

    @cached_property
    def vertebra(self) -> Vertebra | None:
        """The vertebra of the slice, with a whole arch or else with the open one between two pedicles."""
        return self._vertebra(3.0) or self._vertebra(7.0)

    def _vertebra(self, gap_mm: float) -> Vertebra | None:
        """A canal of 60 to 700 mm2 of soft tissue that bone surrounds, gaps up to twice `gap_mm` closed.

        A vertebral body must lie before it and cortex around it (a heart full of contrast has none), in the back
        0.56 of the body. Several holes may qualify (foramina): the canal is large and near the middle.
        """
        pixel = self.grid.pixel_mm
        closed = shrunk(grown(self.bone, gap_mm, pixel), gap_mm, pixel) | self.bone
        holes, _ = ndi.label(ndi.binary_fill_holes(closed) & ~closed)
        left_mm, right_mm, low_mm, high_mm = self.extent_mm
        middle = (left_mm + right_mm) / 2
        # Behind the sacrum's and coccyx's small bodies a trunk has no room for screws; necks have small ones.
        least_radius = 9.5 if self.width_mm > 260 else 6.0
        best: tuple[float, Vertebra] | None = None
        for index, box in enumerate(ndi.find_objects(holes), start=1):
            canal = holes[box] == index
            area = canal.sum() * pixel**2
            values = self.smooth_hu[box][canal]
            if not 60 < area < 700 or not -20 < np.median(values) < 130 or values.min() < -250:
                continue
            row, col = ndi.center_of_mass(canal)
            x, y = self.xy(row + box[0].start, col + box[1].start)
            half_width, half_height = canal.shape[1] * pixel / 2, canal.shape[0] * pixel / 2
            radius = self._body_radius(x, y + half_height)
            score = area - 5 * abs(x - middle)
            if abs(x - middle) > 0.15 * self.width_mm or radius < least_radius or (best and best[0] >= score):
                continue
            if y > low_mm + 0.56 * (high_mm - low_mm) or not self._has_cortex(canal, box):
                continue
            whole = gap_mm < 5
            best = score, Vertebra(holes == index, x, y, half_width, half_height, radius, whole)
        return best[1] if best else None

    def _has_cortex(self, canal: Mask, box: tuple[slice, slice]) -> bool:
        """Whether a sixth of the 4 mm around a hole exceeds 340 HU."""
        pixel = self.grid.pixel_mm
        rim = int(np.ceil(4.0 / pixel))
        wide = tuple(slice(max(0, s.start - rim), s.stop + rim) for s in box)
        inner = np.zeros(self.smooth_hu[wide].shape, bool)
        row, col = box[0].start - wide[0].start, box[1].start - wide[1].start
        inner[row : row + canal.shape[0], col : col + canal.shape[1]] = canal
        around = grown(inner, 4.0, pixel) & ~inner
        return float(np.percentile(self.smooth_hu[wide][around], 84)) > 340

    def _body_radius(self, x_mm: float, y_mm: float) -> float:
        """Radius of the largest circle in spongy bone (above 90 HU) within 25 mm before (x, y)."""
        x, y = self.grid.x_mm()[None, :] - x_mm, self.grid.y_mm()[:, None] - y_mm
        near = (np.abs(x) < 8) & (y > 0) & (y < 25)
        return float(self._spongy_depth[near].max(initial=0.0))

    @cached_property
    def _spongy_depth(self) -> NDArray[np.float64]:
        smoother = ndi.gaussian_filter(self.smooth_hu, 1.5 / self.grid.pixel_mm)
        return depth_mm((smoother > 90) & self.body, self.grid.pixel_mm)

    # -------------------------------------------------------------------------------------------- joints

    def _femoral_head(self, zone: Mask) -> RoundBone | None:
        """Largest circle in spongy bone (above 130 HU), 14.5 to 33 mm in radius, of a bone that is not long.

        Radii come out small where the head is osteoporotic. Behind it and in the middle lies no more than the
        coccyx (350 mm2): at the sacroiliac joints, as round as a hip in a slice, it is the sacrum.
        """
        pixel = self.grid.pixel_mm
        spongy = (ndi.gaussian_filter(self.smooth_hu, 1.0 / pixel) > 130) & self.body
        solid = shrunk(grown(spongy, 1.5, pixel), 1.5, pixel) | spongy
        depth = np.where(zone, depth_mm(solid, pixel), 0.0)
        row, col = (int(i) for i in np.unravel_index(int(np.argmax(depth)), depth.shape))
        head = RoundBone(*self.xy(row, col), float(depth[row, col]))
        if not 14.5 <= head.radius_mm <= 33:
            return None
        x, y = self.grid.x_mm()[None, :], self.grid.y_mm()[:, None]
        around = solid & ((x - head.x_mm) ** 2 + (y - head.y_mm) ** 2 < (1.6 * head.radius_mm) ** 2)
        middle = (self.extent_mm[0] + self.extent_mm[1]) / 2
        sacrum = self.whole_bone & (np.abs(x - middle) < 25) & (y < head.y_mm - 5)
        return head if elongation(around) < 1.5 and sacrum.sum() * pixel**2 < 350 else None

    def _femoral_shaft(self, zone: Mask) -> RoundBone | None:
        """Largest bone that stands alone and is round: 12 to 25 mm in radius, marrow filled in."""
        pixel = self.grid.pixel_mm
        labels, _ = ndi.label(self.whole_bone)
        best: RoundBone | None = None
        for index, box in enumerate(ndi.find_objects(labels), start=1):
            part = np.pad(labels[box] == index, 1)
            depth = depth_mm(part, pixel)
            radius = float(depth.max())
            row, col = np.unravel_index(int(np.argmax(depth)), depth.shape)
            row, col = row - 1 + box[0].start, col - 1 + box[1].start
            if not 12 <= radius <= 25 or not zone[row, col] or (best and best.radius_mm >= radius):
                continue
            # Kidneys full of contrast are as round, but have no cortex.
            cortex = np.percentile(self.smooth_hu[labels == index], 90) > 500
            if cortex and part.sum() * pixel**2 < 2.4 * np.pi * radius**2 and elongation(part) < 2.0:
                best = RoundBone(*self.xy(row, col), radius)
        return best

    @cached_property
    def hips(self) -> list[tuple[RoundBone, bool]]:
        """The femurs, each as a circle and whether it is the head (else a shaft below it).

        They lie in a body wider than 260 mm and not in its back quarter: heads 0.28 to 0.72 half widths from
        the middle, shafts farther out than the ischium; humeral heads are farther out than either, and the
        lungs rule a chest out. A pair must be level and even; a head may stand alone, a shaft may not.
        """
        if self.width_mm < 260 or self.air.sum() > 0.06 * self.body.sum():
            return []
        left_mm, right_mm, low_mm, high_mm = self.extent_mm
        middle = (left_mm + right_mm) / 2
        offset = (self.grid.x_mm() - middle)[None, :] / (self.width_mm / 2)
        front = (self.grid.y_mm() > low_mm + 0.25 * (high_mm - low_mm))[:, None]
        found: list[tuple[RoundBone, bool]] = []
        for side in (-1, 1):
            outward = side * offset
            head = self._femoral_head(front & (outward > 0.28) & (outward < 0.72))
            bone = head or self._femoral_shaft(front & (outward > 0.42) & (outward < 0.78))
            if bone is not None:
                found.append((bone, head is not None))
        if len(found) == 2:
            (right, _), (left, _) = found
            level = abs(right.y_mm - left.y_mm) < 35
            even = abs(right.x_mm + left.x_mm - 2 * middle) < 0.2 * self.width_mm
            if level and even:
                return found
        return found if len(found) == 1 and found[0][1] else []

    @cached_property
    def trachea(self) -> bool:
        """Whether a round airway of 60 to 700 mm2 lies near the midline, at most 30 mm before the spine.

        Bowel gas, which looks the same, lies farther from the spine or off the midline; where no lungs show in the
        back half, the airway must be at most 400 mm2 and hold more than half of all air.
        """
        return self.airway_mm2 > 0

    @cached_property
    def airway_mm2(self) -> float:
        """Area of the airway of `trachea`; 0 where there is none."""
        x, y = self.grid.x_mm(), self.grid.y_mm()
        low_mm, high_mm = self.extent_mm[2:]
        lungs = self.air[y < (low_mm + high_mm) / 2].sum() > 0.01 * self.body.sum()
        total = self.air.sum() * self.grid.pixel_mm**2
        labels, _ = ndi.label(self.air)
        for index, box in enumerate(ndi.find_objects(labels), start=1):
            part = labels[box] == index
            area = float(part.sum() * self.grid.pixel_mm**2)
            centre = float(x[box[1]].mean())
            compact = part.sum() / part.size > 0.55 and 0.4 < part.shape[0] / part.shape[1] < 2.5
            if not (60 < area < 700 and compact and abs(centre - self.midline_mm) < 20):
                continue
            if not lungs and not (area < 400 and area > 0.5 * total):
                continue
            behind = self.bone[:, np.abs(x - centre) < 10].any(axis=1) & (y < y[box[0]][-1])
            if behind.any() and y[box[0]][-1] - y[behind].max() < 30:
                return area
        return 0.0

    @cached_property
    def shoulder_bones(self) -> list[Mask]:
        """Humeral heads, scapulae and clavicles: lateral bones of at least 200 mm2 away from the lungs.

        Empty unless the slice shows an airway and no hips in a body wider than 240 mm.
        """
        if self.width_mm < 240 or self.hips or not self.trachea:
            return []
        pixel = self.grid.pixel_mm
        labels, _ = ndi.label(ndi.binary_fill_holes(self.bone))
        near_lung = grown(self.air, 9.0, pixel)
        bones = []
        for index, box in enumerate(ndi.find_objects(labels), start=1):
            part = labels[box] == index
            centre = float(self.grid.x_mm()[box[1]].mean())
            if part.sum() * pixel**2 < 200 or abs(centre - self.midline_mm) < 0.3 * self.width_mm / 2:
                continue
            if (part & near_lung[box]).sum() > 0.05 * part.sum():
                continue
            bones.append(np.asarray(labels == index))
        return bones

    # -------------------------------------------------------------------------------------------- teeth

    @cached_property
    def teeth(self) -> list[XY]:
        """Centres of teeth: dense spots at least 3 mm thick in the front 0.3 of a head of 100 to 230 mm.

        Enamel must show (1700 HU somewhere, 1500 HU in each tooth): the cortex of a jaw does not reach that.
        """
        if not 100 < self.width_mm < 230:
            return []
        pixel = self.grid.pixel_mm
        low_mm, high_mm = self.extent_mm[2:]
        front = self.body & (self.grid.y_mm()[:, None] > low_mm + 0.7 * (high_mm - low_mm))
        hu = np.where(front, self.image_hu, -1000)
        if hu.max() < 1700:
            return []
        depth = ndi.gaussian_filter(depth_mm(hu > DENSE_HU, pixel), 0.5 / pixel)
        window = 2 * int(np.ceil(2.0 / pixel)) + 1
        peaks = (depth == ndi.maximum_filter(depth, size=window)) & (depth > 1.4)
        peaks &= ndi.maximum_filter(hu, size=window) > 1500
        return [self.xy(r, c) for r, c in zip(*np.nonzero(peaks), strict=True)]

    # ------------------------------------------------------------------------------------- soft tissue

    @cached_property
    def soft(self) -> Mask:
        """Soft tissue: -20 to 100 HU."""
        smooth = ndi.gaussian_filter(self.smooth_hu, 1.5 / self.grid.pixel_mm)
        return np.asarray((smooth > -20) & (smooth < 100) & self.body)
