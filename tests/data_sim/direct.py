"""Beer-Lambert as written, in double precision."""

import numpy as np

from data_sim.materials import linear_attenuation


def direct_integral(paths_mm, spectrum):
    """-ln of the sum over the spectrum, with the largest term taken out of it."""
    exponents = sum(
        -np.asarray(length, np.float64)[..., None] * linear_attenuation(code, spectrum.energies_kev)
        for code, length in paths_mm.items()
    )
    largest = exponents.max(axis=-1)
    return -largest - np.log(np.exp(exponents - largest[..., None]) @ spectrum.weights)
