"""Compute the committed tube spectra with SpekPy: ``python data_sim/tables/make_tables.py``.

Needs the optional dependency ``spekpy`` (``pip install ctmar[tables]``); nothing else of the project does.
Model, settings and limits are described in the README.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import spekpy

TUBE_POTENTIALS_KV = (80, 100, 120, 140)
LOWEST_ENERGY_KEV = 20.0
ANODE_ANGLE_DEG = 12.0
ALUMINIUM_MM = 6.0


def tube_spectrum(kvp: int) -> np.ndarray:
    """Bin-centre energy (keV) and fluence per bin (photons cm^-2 mAs^-1 at 1 m), shape (kvp - 20, 2)."""
    tube = spekpy.Spek(
        kvp=kvp, th=ANODE_ANGLE_DEG, dk=1.0, targ="W", physics="casim", mu_data_source="nist", z=100, mas=1
    )
    tube.filter("Al", ALUMINIUM_MM)
    energies_kev, fluence = tube.get_spectrum(edges=False, flu=True, diff=False)
    kept = energies_kev > LOWEST_ENERGY_KEV
    return np.column_stack([energies_kev[kept], fluence[kept]])


def main() -> None:
    """Write ``tube-<kVp>kvp.csv`` for every tube potential beside this file."""
    for kvp in TUBE_POTENTIALS_KV:
        table = tube_spectrum(kvp)
        mean_kev = float(table[:, 0] @ table[:, 1] / table[:, 1].sum())
        header = (
            f"{kvp} kVp, tungsten anode at {ANODE_ANGLE_DEG:g} degrees, {ALUMINIUM_MM:g} mm Al\n"
            f"SpekPy {spekpy.__version__}, physics casim, mu data nist; mean energy {mean_kev:.2f} keV\n"
            "energy_kev (centre of a 1 keV bin), fluence (photons / cm2 / mAs in the bin, at 1 m)"
        )
        path = Path(__file__).with_name(f"tube-{kvp}kvp.csv")
        np.savetxt(path, table, fmt=("%.1f", "%.6e"), delimiter=",", header=header)


if __name__ == "__main__":
    main()
