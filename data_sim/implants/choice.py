"""Which of the offered materials an implant is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator


def choose_material(rng: Generator, offered: Sequence[str], preferred: Sequence[str] = ()) -> str:
    """One of the offered codes; a preferred one is six times as likely as another.

    Raises
    ------
    ValueError
        Where none is offered.
    """
    if not offered:
        raise ValueError("at least one material is needed")
    weights = np.array([6.0 if code in preferred else 1.0 for code in offered])
    return str(rng.choice(np.asarray(offered), p=weights / weights.sum()))
