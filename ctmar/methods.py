"""The methods by name, for a batch of slices of one geometry.

Every method yields a corrected sinogram p', and the image is ``uncorrected + FBP(p' - p)``. For raw data, where the
uncorrected image is FBP(p), that is FBP(p') by linearity. For a DICOM image, whose sinogram is its own
reprojection, it keeps the image's texture and sharpness, which a reconstruction of the reprojection would lose. There,
`cnn-mar` does not stop at one replacement of the trace but fits the streaks that its rays can make (`ctmar.streaks`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctmar.beam_hardening import correct_beam_hardening
from ctmar.bone import bone_beside_metal
from ctmar.config import UseSettings
from ctmar.ebhc import straightened
from ctmar.interpolation import interpolate_trace
from ctmar.method_names import is_own, known_methods, needs_network, own_images
from ctmar.nmar import nmar_prior, normalized_interpolation
from ctmar.prior import fill_from_ring, tissue_prior
from ctmar.replacement import insert_metal, replace_trace
from ctmar.segmentation import beside, dilate, metal_path_mm, metal_trace
from ctmar.streaks import field_of_view, share_of_network, without_streaks
from ctmar.total_variation import WEIGHTS_HU, tv_prior
from data_sim.kernels import thread_count
from data_sim.projection import Projector
from data_sim.scanner import KERNEL, STORED_HU
from data_sim.units import hu_to_mu, mu_to_hu

logger = logging.getLogger(__name__)

_NMAR_SOURCES = {"nmar1": "uncorrected", "nmar2": "li"}

Stack = NDArray[np.float32]


class Restorer(Protocol):
    """A network as the methods see it; the images of networks among its `channels` are those of `first`."""

    channels: tuple[str, ...]
    use: UseSettings
    first: Restorer | None

    def __call__(self, images_hu: Mapping[str, Stack], metal: NDArray[np.bool_]) -> Stack:
        """Artifact-reduced images in HU from the images named in `channels`, all (slices, rows, cols)."""
        ...


class Correction:
    """One batch of slices with all that the methods share, each part computed once, when first needed.

    Parameters
    ----------
    sinogram : float32 (slices, views, bins)
        Water-corrected line integrals.
    uncorrected_hu : float32 (slices, rows, cols)
    metal : bool (slices, rows, cols)
    projector : of the sinogram's geometry and the images' grid
    mu_water_per_mm : attenuation that is 0 HU
    restorer : the network, needed for "cnn" and "cnn-mar"
    known : images in HU by method name that need not be computed again
    grow : pixels by which the mask is grown before its trace is taken
    reprojected : whether the sinogram is that of the image, not a measured one
    certain : bool (slices, rows, cols), pixels outside of the metal whose prior is the uncorrected image
    window : of the reconstruction, see `data_sim.projection.FILTERS`: the kernel that made `uncorrected_hu`
    """

    def __init__(
        self,
        sinogram: Stack,
        uncorrected_hu: Stack,
        metal: NDArray[np.bool_],
        projector: Projector,
        *,
        mu_water_per_mm: float,
        restorer: Restorer | None = None,
        known: Mapping[str, Stack] | None = None,
        grow: int = 0,
        window: str = KERNEL,
        certain: NDArray[np.bool_] | None = None,
        reprojected: bool = False,
    ) -> None:
        if sinogram.ndim != 3 or uncorrected_hu.shape != metal.shape or len(sinogram) != len(metal):
            raise ValueError("sinogram, image and metal must be stacks of as many slices")
        self.sinogram = sinogram
        self.uncorrected_hu = uncorrected_hu
        self.metal = metal
        self.projector = projector
        self.mu_water_per_mm = mu_water_per_mm
        self.restorer = restorer
        self.use = restorer.use if restorer else UseSettings()
        self.grow = grow
        self.window = window
        self.certain = certain
        self.reprojected = reprojected
        self._priors_hu: dict[str, Stack] = {}
        self._network_prior: tuple[Stack, NDArray[np.bool_] | None] | None = None
        self._images: dict[str, Stack] = {**(known or {}), "uncorrected": uncorrected_hu}

    @classmethod
    def of_image(
        cls,
        image_hu: Stack,
        metal: NDArray[np.bool_],
        projector: Projector,
        *,
        mu_water_per_mm: float,
        restorer: Restorer | None = None,
        known: Mapping[str, Stack] | None = None,
        certain: NDArray[np.bool_] | None = None,
    ) -> Correction:
        """The correction of images without raw data: their reprojection stands in for the measurement.

        The scanner's kernel is in the image already, so that the change is reconstructed with the bare ramp: on
        simulated iron hips 105 HU instead of 111 with the kernel applied twice. The mask is grown by a pixel: it costs
        raw data up to 10 HU, but here the metal's inconsistency has spread to rays beside it. Metal is projected as a
        12-bit scanner stores it, also where the image goes on to 22,000 HU: BHC and networks know nothing else.
        """
        sinogram = projector.forward(hu_to_mu(np.minimum(image_hu, STORED_HU[1]), mu_water_per_mm))
        return cls(
            sinogram,
            image_hu,
            metal,
            projector,
            mu_water_per_mm=mu_water_per_mm,
            restorer=restorer,
            known=known,
            grow=1,
            window="ram-lak",
            certain=certain,
            reprojected=True,
        )

    def using(self, restorer: Restorer, use: UseSettings | None = None) -> Correction:
        """The same slices with another network, or with another use of it; what was computed without one is shared."""
        other = copy.copy(self)
        other.restorer = restorer
        other.use = use or restorer.use
        other._images = {method: stack for method, stack in self._images.items() if not needs_network(method)}
        other._network_prior = None
        return other

    @cached_property
    def path_mm(self) -> Stack:
        """Path length in metal (slices, views, bins)."""
        return metal_path_mm(self.metal, self.projector)

    @cached_property
    def trace(self) -> NDArray[np.bool_]:
        """The metal trace (slices, views, bins)."""
        return metal_trace(metal_path_mm(dilate(self.metal, self.grow), self.projector) if self.grow else self.path_mm)

    @cached_property
    def li_sinogram(self) -> Stack:
        """LI of the sinogram."""
        return interpolate_trace(self.sinogram, self.trace)

    def images(self, methods: Iterable[str]) -> dict[str, Stack]:
        """Corrected images in HU by method name, each (slices, rows, cols), with the metal in place."""
        return {name: self.image(name) for name in methods}

    def image(self, method: str) -> Stack:
        """The images of one method, see `images`.

        Raises
        ------
        ValueError
            For an unknown method, or for one that needs a network where none was given.
        UsageError
            Where a user's own method fails.
        """
        if method not in known_methods():
            raise ValueError(f"unknown method {method!r}: expected one of {', '.join(known_methods())}")
        if method not in self._images:
            begun = perf_counter()
            if is_own(method):
                image = own_images(method, self)
            elif method == "cnn":
                image = self._network_image()
            elif method == "cnn-mar":
                image = self._network_result()
            elif method == "tv":
                image = self._tv[1]
            elif method == "ebhc":
                image = self._ebhc()
            else:
                image = self.reconstruct(self._corrected_sinogram(method))
            self._images[method] = insert_metal(image, self.uncorrected_hu, self.metal)
            # with what it is made from, as far as that was not there
            logger.debug("%s: %d slices, %.2f s", method, len(image), perf_counter() - begun)
        return self._images[method]

    def replace_with_prior(self, prior_hu: Stack, *, normalized: bool = False) -> Stack:
        """Images in HU whose trace comes from a prior image; the metal is put back.

        Of raw data by one replacement, `normalized` or not; of images by the streaks that the rays of the trace can
        make. With the reference image as prior this is the limit that no method can pass.
        """
        if self.reprojected:
            prior_hu = self._uncorrected_where(self.certain, prior_hu)
            image = without_streaks(
                self.uncorrected_hu, prior_hu, self.trace, self.projector, mu_water_per_mm=self.mu_water_per_mm
            )
        else:
            image = self.reconstruct(self._replaced(prior_hu, normalized=normalized))
        return insert_metal(image, self.uncorrected_hu, self.metal)

    def fallback_hu(self, method: str) -> Stack:
        """What stays where a method's change is not supported: EBHC's image, where its network sees that."""
        seen = self.restorer.channels if self.restorer and needs_network(method) else ()
        return self.image("ebhc") if "ebhc" in seen else self.uncorrected_hu

    def reconstruct(self, corrected_sinogram: Stack) -> Stack:
        """Uncorrected image plus the reconstructed change of the sinogram, HU."""
        change = self.projector.fbp(corrected_sinogram - self.sinogram, window=self.window)
        return self.uncorrected_hu + change * np.float32(1000 / self.mu_water_per_mm)

    def prior_hu(self) -> Stack:
        """The prior of the network's image, HU; its card says whether tissue is processed and lost bone put back."""
        return self._prior_and_bone()[0]

    def _prior_and_bone(self) -> tuple[Stack, NDArray[np.bool_] | None]:
        """The network's prior and the bone that was put back into it, None where that was not asked for."""
        if self._network_prior is None:
            make = tissue_prior if self.use.prior == "tissue" else fill_from_ring
            prior_hu = np.stack([make(i, m) for i, m in zip(self.image("cnn"), self.metal, strict=True)])
            bone = None
            if self.use.bone:
                slices = zip(self.uncorrected_hu, self.image("cnn"), prior_hu, self.metal, strict=True)
                pixel_mm = self.projector.grid.pixel_mm
                bone = np.stack([bone_beside_metal(*one, pixel_mm=pixel_mm) for one in slices])
            self._network_prior = self._uncorrected_where(bone, prior_hu), bone
        return self._network_prior

    def _uncorrected_where(self, mask: NDArray[np.bool_] | None, image_hu: Stack) -> Stack:
        return image_hu if mask is None else np.where(mask, self.uncorrected_hu, image_hu)

    def prior_of(self, method: str) -> Stack | None:
        """The prior image from which a method takes the rays of the trace, HU; None where it has none."""
        if method in _NMAR_SOURCES:
            return self._nmar_prior_hu(method)
        if method == "tv":
            return self._tv[0]
        return self.prior_hu() if method == "cnn-mar" and self._result != "image" else None

    @property
    def _result(self) -> str:
        """What `cnn-mar` makes of the network's image on this path, see `ctmar.config.UseSettings`."""
        return self.use.dicom if self.reprojected else self.use.raw

    def _network_result(self) -> Stack:
        """The image of `cnn-mar`."""
        if self._result == "image":
            return self.image("cnn")
        prior_hu, bone = self._prior_and_bone()
        replaced = self.replace_with_prior(prior_hu)
        if self._result == "replacement":
            return replaced
        image = self._uncorrected_where(bone, self.image("cnn"))
        pixel_mm = self.projector.grid.pixel_mm
        share = share_of_network(image, pixel_mm=pixel_mm) if self.reprojected else np.float32(0.5)
        return replaced + share * (image - replaced)

    def _corrected_sinogram(self, method: str) -> Stack:
        if method == "li":
            return self.li_sinogram
        if method == "bhc":
            parts = zip(self.sinogram, self.li_sinogram, self.path_mm, strict=True)
            return np.stack([correct_beam_hardening(*part) for part in parts])
        return normalized_interpolation(self.sinogram, self._prior_sinogram(self._nmar_prior_hu(method)), self.trace)

    def _nmar_prior_hu(self, method: str) -> Stack:
        """The prior of an NMAR, computed once."""
        if method not in self._priors_hu:
            source = hu_to_mu(self.image(_NMAR_SOURCES[method]), self.mu_water_per_mm)
            pairs = zip(source, dilate(self.metal), strict=True)
            priors = [nmar_prior(i, m, mu_water_per_mm=self.mu_water_per_mm) for i, m in pairs]
            self._priors_hu[method] = mu_to_hu(np.stack(priors), self.mu_water_per_mm)
        return self._priors_hu[method]

    def _replaced(self, prior_hu: Stack, *, normalized: bool = False) -> Stack:
        """The sinogram with its trace from a prior image."""
        sinogram = self._prior_sinogram(prior_hu)
        return replace_trace(self.sinogram, sinogram, self.trace, normalized=normalized)

    @cached_property
    def _tv(self) -> tuple[Stack, Stack]:
        """The prior of the last round and the image that it makes, HU, see `ctmar.total_variation`.

        The first is NMAR2's image, tissue processed.
        """
        first = np.stack([tissue_prior(i, m) for i, m in zip(self.image("nmar2"), self.metal, strict=True)])
        # outside of the field of view a reconstruction means nothing, and would grow with every round
        seen = field_of_view(self.projector)
        prior = first
        with ThreadPoolExecutor(thread_count()) as pool:
            for weight_hu in WEIGHTS_HU:
                smooth = partial(tv_prior, weight_hu=weight_hu)
                images = pool.map(smooth, self.reconstruct(self._replaced(prior)), self.metal)
                prior = np.where(seen, np.stack(list(images)), first)
        return prior, self.reconstruct(self._replaced(prior))

    def _ebhc(self) -> Stack:
        """EBHC with the image of TV as target."""
        target_hu = self.image("tv")
        filled = np.stack([fill_from_ring(i, m) for i, m in zip(target_hu, self.metal, strict=True)])
        tissue = self._prior_sinogram(np.where(field_of_view(self.projector), filled, self.uncorrected_hu))
        # the kernel that made the image; a stored one's is not known, and is not in the terms as in a reprojection
        window = KERNEL if self.reprojected else self.window
        parts = (self.uncorrected_hu, target_hu, self.metal, self.path_mm, tissue, self.projector)
        return straightened(*parts, window=window, cut=self.reprojected, left_out=self.certain)

    def _prior_sinogram(self, prior_hu: Stack) -> Stack:
        """Forward projection where it is needed: on the trace and on the bins beside it."""
        prior_mu = hu_to_mu(self._uncorrected_where(self.certain, prior_hu), self.mu_water_per_mm)
        return self.projector.forward(prior_mu, rays=beside(self.trace))

    def _network_image(self) -> Stack:
        if self.restorer is None:
            raise ValueError("the methods cnn and cnn-mar need a network")
        names = self.restorer.channels
        inputs = {name: self.image(name) for name in names if not needs_network(name)}
        if self.restorer.first is not None:
            first = self.using(self.restorer.first)
            inputs |= first.images(name for name in names if needs_network(name))
        return self.restorer(inputs, self.metal)
