"""The beam before the patient: what each bin would see of the tube through air."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_sim.geometry import Geometry, Parallel
from data_sim.materials import linear_attenuation
from data_sim.polychromatic import Paths, polychromatic
from data_sim.spectrum import Spectrum, tube_output
from data_sim.units import MU_WATER_PER_MM, REFERENCE_ENERGY_KEV


@dataclass(frozen=True, eq=False)
class Beam:
    """Spectrum, photons and bowtie filter of a scan.

    Attributes
    ----------
    spectrum : Spectrum
        What the detector sees where the bowtie filter is thinnest.
    photons : float
        Detected photons per ray there.
    second_moment : Spectrum, optional
        `spectrum` times energy once more, where energies are added up: what the variance of the signal goes by.
    bowtie_mm : float64 (bins,), optional
        Thickness of the bowtie filter, mm of PMMA.
    pitch_mm : float
        Distance of neighbouring rays at the isocentre; NaN where there is no geometry.
    """

    spectrum: Spectrum
    photons: float
    second_moment: Spectrum | None = None
    bowtie_mm: NDArray[np.float64] | None = None
    pitch_mm: float = float("nan")

    @property
    def spectra(self) -> tuple[Spectrum, ...]:
        """What line integrals are needed of: the spectrum, and the second moment if there is one."""
        return (self.spectrum,) if self.second_moment is None else (self.spectrum, self.second_moment)

    @property
    def variance_per_photon(self) -> float:
        """<E^2> / <E>^2 of the photons in air: variance of an added-up signal over that of counted photons.

        With the spectrum's weights w ~ n E it is (sum w E) (sum w / E).
        """
        weights, energies_kev = self.spectrum.weights, self.spectrum.energies_kev
        return float((weights @ energies_kev) * (weights @ (1 / energies_kev)))

    def attenuation(
        self, paths_mm: Paths, spectrum: Spectrum, *, where: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Line integrals through bowtie filter and object, against the beam before the filter.

        Parameters
        ----------
        paths_mm
            Paths of shape (..., bins), or (rays, rays per bin) of the bins `where`, bool (..., bins).
        spectrum
            One of `spectra`.
        where
            The bins that the paths belong to.
        """
        if self.bowtie_mm is None:
            return polychromatic(paths_mm, spectrum)
        shape = next(iter(paths_mm.values())).shape
        filter_mm = self.bowtie_mm.astype(np.float32)
        if where is not None:
            filter_mm = np.broadcast_to(filter_mm, where.shape)[where][:, None]
        plastic = paths_mm.get("pmma", np.float32(0)) + np.broadcast_to(filter_mm, shape)
        return polychromatic({**paths_mm, "pmma": plastic}, spectrum)

    def air(self, spectrum: Spectrum) -> NDArray[np.float32]:
        """Line integrals of the bowtie filter alone, float32 (bins,), or 0 (1,) without one."""
        if self.bowtie_mm is None:
            return np.zeros(1, np.float32)
        return polychromatic({"pmma": self.bowtie_mm.astype(np.float32)}, spectrum)


def distances_mm(geometry: Geometry) -> NDArray[np.float64]:
    """Distance s of every bin's ray from the isocentre, mm, shape (bins,): the same in each view."""
    return replace(geometry, views=1).line_coordinates()[1][0]


def pitch_mm(geometry: Geometry) -> float:
    """Distance of neighbouring rays at the isocentre."""
    return float(np.diff(distances_mm(geometry)).max())


def bowtie_thickness_mm(geometry: Geometry, water_mm: float, share: float = 1.0) -> NDArray[np.float64]:
    """Thickness of a bowtie filter of PMMA that evens out a cylinder of water, shape (bins,).

    The filter replaces a share of the water that a ray has less than the central one: with the cylinder's radius r and
    the ray's distance s from its axis (R sin(fan angle) in a fan),

        t = share (mu_water / mu_PMMA)(70 keV) (2 r - 2 sqrt(r^2 - s^2)),

    and keeps its thickness beyond the cylinder. A share of 1 is the ideal filter of that cylinder; but its edge is
    steep, and so little of the beam is left there that scatter rules. Filters of scanners are flatter.

    References
    ----------
    N. Mail, D. J. Moseley, J. H. Siewerdsen, D. A. Jaffray, "The influence of bowtie filtration on cone-beam CT image
    quality", Med. Phys. 36(1):22-32, 2009.
    """
    radius_mm = water_mm / 2
    s_mm = distances_mm(geometry)
    chord_mm = 2 * np.sqrt(np.maximum(radius_mm**2 - s_mm**2, 0))
    ratio = MU_WATER_PER_MM / float(linear_attenuation("pmma", REFERENCE_ENERGY_KEV))
    return np.asarray(share * ratio * (water_mm - chord_mm))


def photons_per_ray(
    mas: float, geometry: Geometry, *, slice_mm: float, kvp: int, filter_al_mm: float = 0.0, filter_cu_mm: float = 0.0
) -> float:
    """Photons that reach one bin in one view through air, from the tube's current and time.

    The tube gives F photons per mm2 and mAs at 1 m (`data_sim.spectrum.tube_output`). A bin that is `slice_mm` high and
    one pitch wide at the isocentre, R from the source, covers (pitch / R) (slice / R) of solid angle wherever the
    detector stands, so that

        N = F (1 m)^2 (pitch / R) (slice / R) mas / views.

    Every photon is taken as detected, and the obliquity of a flat detector as nothing. The number is right within a
    factor of about 2 for a real scanner: its tube, filters, detector and dead space differ.

    Parameters
    ----------
    mas : float
        Tube current times the time of one turn, mAs.
    slice_mm : float
        Height of the detector row at the isocentre.

    Raises
    ------
    ValueError
        For parallel beams, which have no source.
    """
    if isinstance(geometry, Parallel):
        raise ValueError("mas needs a fan: parallel beams have no distance from a source, give photons")
    angle_rad = pitch_mm(geometry) / geometry.source_isocentre_mm
    height_rad = slice_mm / geometry.source_isocentre_mm
    output = tube_output(kvp, filter_al_mm=filter_al_mm, filter_cu_mm=filter_cu_mm)
    return output * 1000.0**2 * angle_rad * height_rad * mas / geometry.views
