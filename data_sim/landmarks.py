"""More landmarks, found from what `Anatomy` holds: chest wall, sternum, brain, knees, humeral heads, bone surfaces.

All in mm in the frame of its grid; each declines where the slice does not show the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import find_contours

from data_sim.anatomy import Anatomy, Mask, RoundBone
from data_sim.morphology import depth_mm, elongation, grown, shrunk

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """Centre and half extents of a bone."""

    x_mm: float
    y_mm: float
    half_x_mm: float
    half_y_mm: float


@dataclass(frozen=True)
class Knee:
    """Femur or tibia at the joint; `patella` where one lies before it, so that it is the femur."""

    bone: Box
    patella: bool


def box_of(part: Mask, anatomy: Anatomy) -> Box:
    """Bounding box of a mask."""
    rows, cols = np.nonzero(part)
    (x0, y0), (x1, y1) = anatomy.xy(rows.max(), cols.min()), anatomy.xy(rows.min(), cols.max())
    return Box((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2)


def parts_of(mask: Mask, least_mm2: float, pixel_mm: float) -> list[Mask]:
    """The connected parts of a mask of at least a given area."""
    labels, _ = ndi.label(mask)
    sizes = np.bincount(labels.ravel()) * pixel_mm**2
    return [np.asarray(labels == index) for index in range(1, len(sizes)) if sizes[index] >= least_mm2]


def outlines(part: Mask, anatomy: Anatomy) -> Points:
    """The longest closed outline of a mask, (n, 2) of x, y in mm about 0.5 mm apart, the mask to its left."""
    smooth = ndi.gaussian_filter(np.pad(part, 1).astype(np.float32), 1.0 / anatomy.grid.pixel_mm)
    rings = find_contours(smooth, 0.5, positive_orientation="low")
    ring = max(rings, key=len) - 1
    x = anatomy.grid.x_mm()[0] + ring[:, 1] * anatomy.grid.pixel_mm
    y = anatomy.grid.y_mm()[0] - ring[:, 0] * anatomy.grid.pixel_mm
    path = np.stack([x, y], axis=1)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    even = np.arange(0, along[-1], 0.5)
    path = np.stack([np.interp(even, along, path[:, k]) for k in (0, 1)], axis=1)
    turned = np.roll(path, -1, axis=0)
    area = float(np.sum(path[:, 0] * turned[:, 1] - turned[:, 0] * path[:, 1]))
    return path if area > 0 else path[::-1]


def _before(bone: Box, other: Box) -> bool:
    """Whether another bone lies in front, as a patella does."""
    return abs(other.x_mm - bone.x_mm) < bone.half_x_mm and other.y_mm > bone.y_mm + 0.8 * bone.half_y_mm


class Landmarks(Anatomy):
    """An `Anatomy` that also finds these; like its own, each when first asked for."""

    # ----------------------------------------------------------------------------------------------- chest

    @cached_property
    def is_upper_chest(self) -> bool:
        """Whether the chest is cut above the carina: its airway is one of at least 100 mm2."""
        return self.is_chest and self.airway_mm2 >= 100

    @cached_property
    def is_chest(self) -> bool:
        """Whether lungs fill at least 8 % of a body wider than 220 mm, on both sides of the midline."""
        if self.width_mm < 220:
            return False
        left = self.grid.x_mm() < self.midline_mm
        body = self.body.sum()
        return bool(min(self.air[:, left].sum(), self.air[:, ~left].sum()) > 0.04 * body)

    @cached_property
    def anterior_skin(self) -> NDArray[np.float64]:
        """Height y of the foremost skin in every column, smoothed over 6 mm; NaN where there is no body."""
        body = self.body
        y = np.where(body.any(axis=0), self.grid.y_mm()[np.argmax(body, axis=0)], np.nan)
        known = np.flatnonzero(~np.isnan(y))
        if known.size:
            inner = slice(known[0], known[-1] + 1)
            filled = np.interp(np.arange(y.size), known, y[known])
            y[inner] = ndi.gaussian_filter1d(filled[inner], 6.0 / self.grid.pixel_mm, mode="nearest")
        return y

    @cached_property
    def sternum(self) -> Box | None:
        """Bone near the midline, 16 to 75 mm wide and 5 to 28 mm thick.

        It lies 3 to 45 mm under the skin in front and no deeper than the lungs' front.
        """
        if not self.is_chest:
            return None
        grid = self.grid
        x = grid.x_mm()
        middle = int(np.argmin(np.abs(x - self.midline_mm)))
        skin = self.anterior_skin[middle]
        near = (np.abs(x - self.midline_mm) < 40)[None, :]
        near = near & (grid.y_mm() > skin - 50)[:, None]
        spongy = (ndi.gaussian_filter(self.smooth_hu, 1.0 / grid.pixel_mm) > 110) & near & self.body
        solid = shrunk(grown(spongy, 1.5, grid.pixel_mm), 1.5, grid.pixel_mm) | spongy
        solid = ndi.binary_opening(np.asarray(ndi.binary_fill_holes(solid)), iterations=round(1.5 / grid.pixel_mm) or 1)
        lung_front_mm = float(grid.y_mm()[np.argmax(self.air.any(axis=1))])
        best: tuple[float, Box] | None = None
        for part in parts_of(solid, 90.0, grid.pixel_mm):
            bone = box_of(part, self)
            # A liver or an aorta full of contrast has no cortex; the heart and vessels lie behind the lungs' front.
            if np.percentile(self.smooth_hu[part], 80) < 230 or bone.y_mm < lung_front_mm - 20:
                continue
            wide = 8 <= bone.half_x_mm <= 37.5 and 2.5 <= bone.half_y_mm <= 14
            central = abs(bone.x_mm - self.midline_mm) < 15
            filled = part.sum() * grid.pixel_mm**2 / (4 * bone.half_x_mm * bone.half_y_mm + 1e-9)
            ahead = skin - bone.y_mm - bone.half_y_mm
            if wide and central and filled > 0.45 and 3 < ahead < 45 and bone.half_x_mm > bone.half_y_mm:
                score = float(part.sum() * np.exp(-(((bone.x_mm - self.midline_mm) / 8) ** 2)))
                if best is None or score > best[0]:
                    best = score, bone
        return best[1] if best else None

    # ------------------------------------------------------------------------------------------------ head

    @cached_property
    def brain(self) -> Mask | None:
        """What the skull encloses, gaps up to 20 mm closed: at least 2000 mm2 of soft tissue in a head."""
        if not 100 < self.width_mm < 230:
            return None
        pixel = self.grid.pixel_mm
        closed = shrunk(grown(self.bone, 10.0, pixel), 10.0, pixel) | self.bone
        inside = parts_of(ndi.binary_fill_holes(closed) & ~closed, 2000.0, pixel)
        for part in sorted(inside, key=np.count_nonzero, reverse=True):
            values = self.smooth_hu[part]
            if 0 < np.median(values) < 90 and (values < -50).mean() < 0.05:
                return part
        return None

    @cached_property
    def deep_brain(self) -> Mask:
        """Brain at least 8 mm from bone in the middle of the head, where aneurysms are clipped or coiled."""
        inner = self.brain
        if inner is None:
            return np.zeros(self.grid.shape, bool)
        left_mm, right_mm, low_mm, high_mm = self.extent_mm
        x = (self.grid.x_mm() - (left_mm + right_mm) / 2) / (right_mm - left_mm)
        y = (self.grid.y_mm() - (low_mm + high_mm) / 2) / (high_mm - low_mm)
        middle = (np.abs(x) < 0.25)[None, :] & ((y > -0.2) & (y < 0.3))[:, None]
        return np.asarray(middle & ~self.bone & shrunk(inner, 8.0, self.grid.pixel_mm))

    @cached_property
    def deep_soft(self) -> Mask:
        """Soft tissue at least 4 mm from other tissue and 35 mm under the skin."""
        pixel = self.grid.pixel_mm
        return shrunk(self.body, 35.0, pixel) & shrunk(self.soft, 4.0, pixel)

    # ---------------------------------------------------------------------------------------------- joints

    @cached_property
    def knees(self) -> list[Knee]:
        """Ends of femur or tibia: solid bones 50 to 95 mm wide that fill a fifth of the slice, one or an even pair.

        No lungs, no vertebra and no skull beside them: legs have nothing else.
        """
        if self.air.sum() > 0.02 * self.body.sum() or self.cranium or self.teeth:
            return []
        pixel = self.grid.pixel_mm
        ends: list[tuple[Box, Mask]] = []
        others: list[Box] = []
        for part in parts_of(ndi.binary_fill_holes(self.whole_bone), 150.0, pixel):
            bone = box_of(part, self)
            area = part.sum() * pixel**2
            solid = area / (4 * bone.half_x_mm * bone.half_y_mm)
            if 25 <= bone.half_x_mm <= 48 and 19 <= bone.half_y_mm <= 42 and area > 1700 and solid > 0.6:
                if np.median(self.smooth_hu[part]) > 60:
                    ends.append((bone, part))
            else:
                others.append(bone)
        share = sum(int(part.sum()) for _, part in ends) / max(int(self.body.sum()), 1)
        if not 1 <= len(ends) <= 2 or share < 0.2:
            return []
        if len(ends) == 2:
            one, two = (bone for bone, _ in ends)
            if abs(one.y_mm - two.y_mm) > 40 or not 0.8 < one.half_x_mm / two.half_x_mm < 1.25:
                return []
        return [Knee(bone, any(_before(bone, other) for other in others)) for bone, _ in ends]

    @cached_property
    def humeral_heads(self) -> list[RoundBone]:
        """Largest circles in the outer half of a slice with shoulder bones, 17 to 30 mm in radius."""
        if not self.shoulder_bones:
            return []
        grid = self.grid
        outward = (grid.x_mm() - self.midline_mm)[None, :] / (self.width_mm / 2)
        spongy = (ndi.gaussian_filter(self.smooth_hu, 1.0 / grid.pixel_mm) > 110) & self.body
        solid = ndi.binary_fill_holes(shrunk(grown(spongy, 2.0, grid.pixel_mm), 2.0, grid.pixel_mm) | spongy)
        depth = depth_mm(np.asarray(solid), grid.pixel_mm)
        heads = []
        for side in (-1, 1):
            zone = np.where(side * outward > 0.5, depth, 0.0)
            row, col = (int(i) for i in np.unravel_index(int(np.argmax(zone)), zone.shape))
            head = RoundBone(*self.xy(row, col), float(zone[row, col]))
            if not 17 <= head.radius_mm <= 30:
                continue
            far = (grid.x_mm()[None, :] - head.x_mm) ** 2 + (grid.y_mm()[:, None] - head.y_mm) ** 2
            around = solid & (far < (1.25 * head.radius_mm) ** 2)
            # Kidneys full of contrast are as round, but have no cortex.
            if elongation(around) < 1.5 and np.percentile(self.smooth_hu[around], 90) > 350:
                heads.append(head)
        return heads

    # ------------------------------------------------------------------------------------- bones for plates

    @cached_property
    def shafts(self) -> list[tuple[RoundBone, Mask]]:
        """Long bones cut across, with cortex all around: 8 to 22 mm in radius, each standing alone.

        In a trunk they lie to the side, where no vertebra does; a limb by itself has neither vertebra nor air.
        """
        pixel = self.grid.pixel_mm
        limb = self.width_mm < 200 and self.vertebra is None and not self.air.any()
        aside = 0.0 if limb else max(0.35 * self.width_mm / 2, 50.0)
        labels, _ = ndi.label(ndi.binary_fill_holes(self.bone))
        found = []
        for index, box in enumerate(ndi.find_objects(labels), start=1):
            part = np.pad(labels[box] == index, 1)
            area = part.sum() * pixel**2
            if max(part.shape) * pixel > 60 or not 180 < area < 2900:
                continue
            depth = depth_mm(part, pixel)
            radius = float(depth.max())
            if not 8 <= radius <= 22 or area > 1.9 * np.pi * radius**2 or elongation(part) > 1.6:
                continue
            values = np.pad(self.smooth_hu[box], 1)
            cortex = part & (depth < max(3.0, 1.1 * pixel))  # a pixel's width at least
            if np.median(values[cortex]) < 450 or np.median(values[depth > 0.7 * radius]) > 400:
                continue
            row, col = (int(i) for i in np.unravel_index(int(np.argmax(depth)), depth.shape))
            bone = RoundBone(*self.xy(row - 1 + box[0].start, col - 1 + box[1].start), radius)
            if abs(bone.x_mm - self.midline_mm) >= aside:
                found.append((bone, np.asarray(labels == index)))
        return found

    @cached_property
    def flat_bones(self) -> list[Mask]:
        """Clavicle and scapula; in a pelvis without hips the ilium."""
        if self.shoulder_bones:
            return [bone for bone in self.shoulder_bones if elongation(bone) > 1.8]
        if self.hips or self.width_mm < 260 or self.air.sum() > 0.06 * self.body.sum():
            return []
        x = self.grid.x_mm()
        bones = parts_of(self.whole_bone, 500.0, self.grid.pixel_mm)
        aside = [abs(float(x[np.nonzero(bone)[1]].mean()) - self.midline_mm) for bone in bones]
        least = 0.3 * self.width_mm / 2
        return [bone for bone, away in zip(bones, aside, strict=True) if away > least and elongation(bone) > 2.5]
