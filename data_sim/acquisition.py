"""The scan: its settings, and what the scanner makes of path lengths.

The forward model works on path lengths, one array of mm per material; `data_sim.scanner` makes them from
a slice and the metal in it. With the default settings it is that of Y. Zhang and H. Yu, "Convolutional Neural Network
Based Metal Artifact Reduction in X-ray Computed Tomography", IEEE TMI 37(6):1370-1381, 2018 (arXiv 1709.01581).

A signal goes through bowtie filter and patient (`data_sim.beam`, `data_sim.polychromatic`), is blurred by the focal
spot (`data_sim.blur`), gains scatter (`data_sim.scatter`), is detected with noise and crosstalk (`data_sim.noise`),
divided by the scan of air, and linearised for water (`data_sim.water_correction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_sim.beam import Beam, bowtie_thickness_mm, photons_per_ray, pitch_mm
from data_sim.blur import FWHM, blurred, shared
from data_sim.geometry import Geometry
from data_sim.noise import detect
from data_sim.polychromatic import Paths
from data_sim.scatter import object_scatter
from data_sim.spectrum import load_spectrum
from data_sim.water_correction import apply_water_correction, fit_behind_bowtie, fit_water_correction

_LIMITS = {
    "photons": (1, 1e15),
    "scatter_photons": (0, 1e15),
    "bowtie_mm": (0, 1000),
    "bowtie_share": (0, 1),
    "slice_thickness_mm": (0.1, 100),
    "electronic_noise_photons": (0, 1e6),
    "scatter_ratio": (0, 1),
    "scatter_fwhm_mm": (1, 1000),
    "focal_spot_mm": (0, 20),
    "crosstalk": (0, 0.25),
    "rays_per_bin": (1, 16),
    "metal_fill": (0.01, 1),
}
"""Least and largest value of settings that are numbers."""


@dataclass(frozen=True)
class ScanSettings:
    """Everything about a scan but its geometry. The defaults are the paper's scanner.

    Attributes
    ----------
    kvp : int
        Tube potential, one of `data_sim.spectrum.TUBE_POTENTIALS_KV`.
    filter_al_mm, filter_cu_mm : float
        Aluminium and copper in the beam beside the 6 mm Al of the tables.
    bowtie_mm, bowtie_share : float
        Diameter of the cylinder of water that a bowtie filter evens out, and to what share, see
        `data_sim.beam.bowtie_thickness_mm`; a diameter of 0 is no filter.
    photons : float
        Detected photons per ray in air, where the bowtie filter is thinnest.
    mas : float, optional
        Tube current times the time of a turn, mAs: takes the place of `photons`, see `data_sim.beam.photons_per_ray`.
    slice_thickness_mm : float
        Height of the detector row at the isocentre, for `mas`.
    scatter_photons : float
        Scattered photons that every ray detects beside them.
    scatter_ratio, scatter_fwhm_mm : float
        Scattered photons per primary photon and unit of line integral, and the width at the isocentre over which they
        spread, see `data_sim.scatter.object_scatter`; a ratio of 0 is no such scatter.
    focal_spot_mm : float
        Full width at half maximum of the focal spot's blur at the isocentre: for a spot of f mm, f (1 - R / D) with the
        source R from the isocentre and D from the detector. Intensities are blurred along the detector before photons
        are counted, alike at every depth.
    crosstalk : float
        Share of its signal that a bin gives to either neighbour after detection: blurs signal and noise.
    rays_per_bin : int
        Rays through metal that a bin averages as intensities, for the finite size of detector cells.
    metal_fill : float
        Share of the slice's thickness that implants fill. A bin then detects ``fill I_metal + (1 - fill) I_tissue``:
        the non-linear partial volume across the slice (G. H. Glover, N. J. Pelc, "Nonlinear partial volume artifacts
        in x-ray computed tomography", Med. Phys. 7(3):238-248, 1980).
    detector : str
        One of `data_sim.spectrum.DETECTORS`. An energy-integrating detector weighs photons by their energy, and its
        noise is compound Poisson (`data_sim.noise.detect`).
    electronic_noise_photons : float
        Standard deviation of the electronic noise in photons (of the mean energy in air, where energies are added up).
    water_correction : bool
        Whether sinograms are linearised for water.
    """

    kvp: int = 120
    filter_al_mm: float = 0.0
    filter_cu_mm: float = 0.0
    bowtie_mm: float = 0.0
    bowtie_share: float = 0.5
    photons: float = 2e7
    mas: float | None = None
    slice_thickness_mm: float = 1.0
    scatter_photons: float = 20.0
    scatter_ratio: float = 0.0
    scatter_fwhm_mm: float = 100.0
    focal_spot_mm: float = 0.0
    crosstalk: float = 0.0
    rays_per_bin: int = 3
    metal_fill: float = 1.0
    detector: str = "photon-counting"
    electronic_noise_photons: float = 0.0
    water_correction: bool = True

    def __post_init__(self) -> None:
        load_spectrum(self.kvp, self.detector, filter_al_mm=self.filter_al_mm, filter_cu_mm=self.filter_cu_mm)
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value}")
        if self.mas is not None and not 0 < self.mas <= 1e6:
            raise ValueError(f"mas must lie between 0 and 1e6, not {self.mas}")

    def beam(self, geometry: Geometry | None = None) -> Beam:
        """The beam of these settings in a geometry; without one, where no setting needs it.

        Raises
        ------
        ValueError
            Where a setting needs a geometry that is missing, or does not fit it.
        """
        spectrum = load_spectrum(
            self.kvp, self.detector, filter_al_mm=self.filter_al_mm, filter_cu_mm=self.filter_cu_mm
        )
        second = spectrum.weighted_by_energy if self.detector == "energy-integrating" else None
        if geometry is None:
            for name in ("bowtie_mm", "mas", "scatter_ratio", "focal_spot_mm"):
                if getattr(self, name):
                    raise ValueError(f"{name} needs the geometry of the scan")
            return Beam(spectrum, self.photons, second)
        photons = self.photons
        if self.mas is not None:
            photons = photons_per_ray(
                self.mas,
                geometry,
                slice_mm=self.slice_thickness_mm,
                kvp=self.kvp,
                filter_al_mm=self.filter_al_mm,
                filter_cu_mm=self.filter_cu_mm,
            )
        bowtie_mm = bowtie_thickness_mm(geometry, self.bowtie_mm, self.bowtie_share) if self.bowtie_mm else None
        return Beam(spectrum, photons, second, bowtie_mm, pitch_mm(geometry))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; `ScanSettings(**values)` reads them back."""
        return asdict(self)


def scan(
    paths_mm: Paths, settings: ScanSettings, *, rng: np.random.Generator, geometry: Geometry | None = None
) -> NDArray[np.float32]:
    """Sinogram of given path lengths: polychromatic, noisy, water-corrected.

    Parameters
    ----------
    paths_mm : mapping of str to ndarray (..., bins)
        Path length of every ray in each material, mm.
    settings, geometry
        The scan; it needs a geometry only where a setting does, which then says so.
    rng
        Source of the noise.

    Returns
    -------
    float32 (..., bins)
    """
    beam = settings.beam(geometry)
    return measure([beam.attenuation(paths_mm, spectrum) for spectrum in beam.spectra], beam, settings, rng)


def measure(
    attenuation: Sequence[NDArray[np.float32]], beam: Beam, settings: ScanSettings, rng: np.random.Generator
) -> NDArray[np.float32]:
    """What the scanner makes of noiseless line integrals: ln(air / reading), water-corrected.

    Parameters
    ----------
    attenuation : float32 (..., bins), one for each of `Beam.spectra`
        Line integrals through bowtie filter and object.
    beam, settings
        The scan.
    rng
        Source of the noise.

    Returns
    -------
    float32 (..., bins)
    """
    primary = _arriving(attenuation[0], beam, settings)
    scattered: float | NDArray[np.float64] = settings.scatter_photons
    if settings.scatter_ratio:
        scattered = scattered + object_scatter(
            primary,
            attenuation[0] - beam.air(beam.spectrum),
            ratio=settings.scatter_ratio,
            fwhm_bins=settings.scatter_fwhm_mm / beam.pitch_mm,
        )
    variance = None
    if beam.second_moment is not None:
        variance = beam.variance_per_photon * (_arriving(attenuation[1], beam, settings) + scattered)
    reading = detect(
        primary + scattered,
        variance,
        crosstalk=settings.crosstalk,
        electronic_noise=settings.electronic_noise_photons,
        rng=rng,
    )
    p = (np.log(_signal_in_air(beam, settings)) - np.log(reading, out=reading)).astype(np.float32)
    return apply_water_correction(p, _correction(beam)) if settings.water_correction else p


def starved_share(
    sinogram: NDArray[np.float32],
    trace: NDArray[np.bool_],
    settings: ScanSettings,
    *,
    geometry: Geometry | None = None,
    fewer_than: float = 100.0,
) -> float:
    """Share of the rays of a metal trace that detected next to nothing.

    Parameters
    ----------
    sinogram : float32 (..., bins)
        A scan of these settings, as `scan` or `data_sim.scanner` gives it.
    trace : bool (..., bins)
        Rays that meet metal.
    settings, geometry
        The scan.
    fewer_than : float
        Photons, scattered ones counted in, below which a ray is starved; with 100, its line integral is uncertain by
        0.1 and more.

    Returns
    -------
    float
        0 to 1; NaN where the trace is empty.
    """
    beam = settings.beam(geometry)
    limit = np.log(_signal_in_air(beam, settings) / fewer_than)
    if settings.water_correction:
        limit = apply_water_correction(limit, _correction(beam))
    starved = (sinogram > limit)[trace]
    return float(starved.mean()) if starved.size else float("nan")


def _arriving(attenuation: NDArray[np.float32], beam: Beam, settings: ScanSettings) -> NDArray[np.float64]:
    """Expected primary photons, blurred by the focal spot."""
    intensity = np.exp(-attenuation.astype(np.float64))
    intensity *= beam.photons
    sigma_bins = settings.focal_spot_mm / FWHM / beam.pitch_mm if settings.focal_spot_mm else 0.0
    return blurred(intensity, sigma_bins)


def _signal_in_air(beam: Beam, settings: ScanSettings) -> NDArray[np.float64]:
    """What the scanner was calibrated with: air, no scatter, no noise; (bins,) or (1,)."""
    return shared(_arriving(beam.air(beam.spectrum), beam, settings), settings.crosstalk)


def _correction(beam: Beam) -> NDArray[np.float64]:
    """Coefficients of the water correction, of each bin behind a bowtie filter."""
    if beam.bowtie_mm is None:
        return fit_water_correction(beam.spectrum)
    return fit_behind_bowtie(beam.spectrum, beam.bowtie_mm)
