"""The painter of the phantom: tissues with texture, and shapes laid over one another with antialiased edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.interpolate import CubicSpline

from data_sim.geometry import ImageGrid

Image = NDArray[np.float32]
Box = tuple[slice, slice]
XY = tuple[float, float]

BLUR_MM = 0.45
"""Gaussian sigma that softens every edge, as the point spread of a clinical scan does."""


@dataclass(frozen=True)
class Tissue:
    """Mean HU, standard deviation of its texture in HU, and which texture (0 coarse, 1 streaky, 2 fine)."""

    hu: float
    spread: float = 0.0
    grain: int = 0


SKIN = Tissue(20)
FAT = Tissue(-100, 7)
MUSCLE = Tissue(52, 16, 1)
ORGAN = Tissue(42, 6)
GLAND = Tissue(5, 28, 2)
WATER = Tissue(5, 2)
BLOOD = Tissue(45, 3)
WHITE = Tissue(28, 2)
GREY = Tissue(38, 2)
CORTEX = Tissue(1050, 90, 2)
SPONGY = Tissue(270, 50, 2)
DIPLOE = Tissue(480, 90, 2)
DISC = Tissue(85, 8)
DENTINE = Tissue(1750, 60, 2)
ENAMEL = Tissue(2400, 60, 2)
PULP = Tissue(150)
LUNG = Tissue(-850, 22)
GAS = Tissue(-990)


class Canvas:
    """A slice in the making: the image, the patient's random numbers, and the two brushes.

    The generator is made anew from the seed for every slice and must be asked the same questions whatever
    z is; only then does a series show one patient.
    """

    def __init__(self, grid: ImageGrid, seed: int, z_mm: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.grid = grid
        self.z_mm = z_mm
        self.size = float(np.clip(self.rng.normal(1.0, 0.025), 0.95, 1.04))
        self.x = grid.x_mm()[None, :] / self.size
        self.y = grid.y_mm()[:, None] / self.size
        self.pixel = grid.pixel_mm / self.size
        self.hu = np.full(grid.shape, -1000.0, np.float32)
        self.limit = np.ones(grid.shape, np.float32)
        self.textures = [self._texture(4.0, 4.0), self._texture(1.6, 4.5), self._texture(1.3, 1.3)]

    def _texture(self, grain_y_mm: float, grain_x_mm: float) -> Image:
        """Smooth random field of zero mean and unit variance, drifting with z over about 12 mm."""
        cells = 160
        pair = self.rng.normal(size=(2, cells, cells))
        lattice = ndi.gaussian_filter(pair, (0, 0.9, 0.9), mode="wrap")
        phase = self.z_mm / 12.0
        field = lattice[0] * np.cos(phase) + lattice[1] * np.sin(phase)
        field /= field.std()
        rows, cols = self.y / grain_y_mm + cells / 2, self.x / grain_x_mm + cells / 2
        index = np.broadcast_arrays(rows, cols)
        return ndi.map_coordinates(field.astype(np.float32), index, order=1, mode="grid-wrap")

    def vary(self, mean: float, part: float = 0.04) -> float:
        """A length or HU of this patient: mean +- part, waving slowly by a third of that along z."""
        own, phase = float(np.clip(self.rng.normal(), -2, 2)), self.rng.uniform(0, 2 * np.pi)
        return mean * (1 + part * (own + np.sin(self.z_mm / 25 + phase) / 3))

    def _paint(self, box: Box, distance_px: NDArray[np.floating], tissue: Tissue) -> None:
        """Lay a tissue over what is there, where the distance to its edge is negative."""
        alpha = self.limit[box] * np.clip(0.5 - distance_px, 0, 1).astype(np.float32)
        value = tissue.hu + tissue.spread * self.textures[tissue.grain][box]
        self.hu[box] += alpha * (value - self.hu[box])

    def _box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """Pixels between two corners (x, y), and two more on each side."""
        top, left = self.grid.index_of(low[0] * self.size, high[1] * self.size)
        bottom, right = self.grid.index_of(high[0] * self.size, low[1] * self.size)
        return (
            slice(max(0, int(top) - 2), max(0, int(bottom) + 3)),
            slice(max(0, int(left) - 2), max(0, int(right) + 3)),
        )

    def blob(
        self,
        tissue: Tissue,
        at: XY,
        half: XY,
        *,
        turn_deg: float = 0.0,
        power: float = 2.0,
        wobble: float = 0.025,
    ) -> None:
        """Superellipse about `at` with half axes `half`, turned, its radius waving by `wobble`."""
        waves = [(k, wobble * self.rng.normal() / (k - 1), self.rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)]
        if min(half) <= 0:
            return
        reach = 1.2 * max(half) * 2 ** max(0.0, 0.5 - 1 / power)
        box = self._box((at[0] - reach, at[1] - reach), (at[0] + reach, at[1] + reach))
        x, y = self.x[:, box[1]] - at[0], self.y[box[0]] - at[1]
        if x.size < 2 or y.size < 2:
            return
        c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
        u, v = (x * c + y * s) / half[0], (y * c - x * s) / half[1]
        angle = np.arctan2(v, u)
        level = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
        level = level / (1 + sum(size * np.cos(k * angle + phase) for k, size, phase in waves))
        slope = np.hypot(*np.gradient(level))
        self._paint(box, (level - 1) / np.maximum(slope, 1e-6), tissue)

    def strip(self, tissue: Tissue, points: Sequence[XY], width: float | Sequence[float]) -> None:
        """Smooth path through the points, `width` mm wide (one value, or one at each point)."""
        if np.max(width) <= 0:
            return
        knots = np.arange(len(points))
        fine = np.linspace(0, knots[-1], 10 * len(points))
        path = CubicSpline(knots, np.asarray(points, float), bc_type="natural")(fine)
        half = np.interp(fine, knots, np.broadcast_to(np.asarray(width, float) / 2, knots.shape))
        box = self._box((path.min(axis=0) - half.max()).tolist(), (path.max(axis=0) + half.max()).tolist())
        x, y = self.x[:, box[1]], self.y[box[0]]
        if not x.size or not y.size:
            return
        nearest = np.full((y.shape[0], x.shape[1]), np.inf)
        for (x0, y0), (x1, y1), w0, w1 in zip(path[:-1], path[1:], half[:-1], half[1:], strict=True):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx**2 + dy**2, 1e-9), 0, 1)
            away = np.hypot(x - x0 - along * dx, y - y0 - along * dy) - (w0 + along * (w1 - w0))
            np.minimum(nearest, away, out=nearest)
        self._paint(box, nearest / self.pixel, tissue)

    # Bone: a cortex filled with spongy bone. The generator is wound back so that both have the same outline.

    def bone(
        self,
        at: XY,
        half: XY,
        cortex: float,
        *,
        turn_deg: float = 0.0,
        power: float = 2.0,
        core: Tissue = SPONGY,
    ) -> None:
        """A blob of bone with a cortex `cortex` mm thick."""
        state = self.rng.bit_generator.state
        self.blob(CORTEX, at, half, turn_deg=turn_deg, power=power)
        self.rng.bit_generator.state = state
        inner = (half[0] - cortex, half[1] - cortex)
        self.blob(core, at, inner, turn_deg=turn_deg, power=power)

    def bone_strip(self, points: Sequence[XY], width: float | Sequence[float], cortex: float) -> None:
        """A strip of bone; where it is thinner than two cortices it has no spongy core."""
        self.strip(CORTEX, points, width)
        self.strip(SPONGY, points, np.subtract(width, 2 * cortex).tolist())

    # ------------------------------------------------------------------------------------- shared parts

    def outline(self, half: XY, power: float, fat_mm: float) -> None:
        """Skin, then subcutaneous fat; what is painted later comes no nearer to the skin than `fat_mm`."""

        def fill(tissue: Tissue, inset: float) -> None:
            self.rng.bit_generator.state = state
            self.blob(tissue, (0, 0), (half[0] - inset, half[1] - inset), power=power, wobble=0.012)

        state = self.rng.bit_generator.state
        fill(SKIN, 0.0)
        fill(FAT, 2.0)
        skin_and_fat, self.hu = self.hu, np.zeros_like(self.hu)
        fill(Tissue(1.0), fat_mm)
        self.hu, self.limit = skin_and_fat, self.hu

    def vertebra(self, y: float, half: XY, canal: float, wings: float) -> None:
        """Vertebra whose body is centred at y: pedicles, laminae, transverse and spinous processes, canal."""
        a, b = half
        canal_y = y - b - 0.8 * canal
        back = canal_y - canal - 4
        for side in (-1, 1):
            self.bone_strip([(side * (canal + 4), canal_y + 1), (side * wings, canal_y - 8)], [9, 6], 1.3)
            self.bone_strip([(side * (canal + 4), y - b + 5), (side * (canal + 4.5), canal_y - 4)], 8.5, 1.3)
            self.bone_strip([(side * (canal + 4.5), canal_y - 4), (0, back)], [8, 7], 1.2)
        self.bone_strip([(0, back), (0, back - 1.2 * canal - 6)], [7, 5.5], 1.2)
        self.bone((0, y), (a, b), 1.2, power=2.4)
        self.blob(Tissue(10, 4), (0, canal_y), (canal, 0.85 * canal), wobble=0.01)
        self.blob(Tissue(40), (0, canal_y), (0.5 * canal, 0.4 * canal), wobble=0.01)

    def muscle(self, at: XY, half: XY, turn_deg: float = 0.0) -> None:
        """The same muscle on both sides, each with its own outline and a fascia of fat around it."""
        for side in (-1, 1):
            place, turn = (side * at[0], at[1]), side * turn_deg
            state = self.rng.bit_generator.state
            self.blob(FAT, place, (half[0] + 1.2, half[1] + 1.2), turn_deg=turn, power=2.3, wobble=0.04)
            self.rng.bit_generator.state = state
            self.blob(MUSCLE, place, half, turn_deg=turn, power=2.3, wobble=0.04)


# ---------------------------------------------------------------------------------------------------- regions
