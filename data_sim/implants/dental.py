"""Teeth: fillings, crowns, bridges and dental implants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece, Points, moved
from data_sim.implants.shapes import band, blob, disc, superellipse


def filling(rng: Generator, materials: Sequence[str]) -> Implant:
    """Dental filling, origin at its centre: irregular and rounded, 2 to 6 mm.

    Class I and II restorations leave most of a molar's 10 to 11 mm crown (Wheeler's Dental Anatomy).
    """
    material = choose_material(rng, materials, ("amalgam", "goldalloy", "au"))
    return (Piece(blob(rng, rng.uniform(2, 6)), material),)


def crown(rng: Generator, materials: Sequence[str]) -> Implant:
    """Full metal crown cut by the slice, origin at its centre: a rounded rectangle of 6 to 10 mm.

    Premolars are 7 to 9 mm, molars 10 to 11 mm across (Wheeler's Dental Anatomy).
    """
    half_x, half_y = rng.uniform(3, 5, 2)
    return (Piece(superellipse(half_x, half_y, 3), choose_material(rng, materials, ("goldalloy", "au", "cocrmo"))),)


def bridge(rng: Generator, materials: Sequence[str], *, teeth_mm: Points) -> Implant:
    """Fixed bridge over neighbouring teeth, in their frame: a crown on each, joined by connectors.

    Three to five units; crowns of 6 to 9 mm, connectors 3 to 4 mm wide (a cast connector needs at least 9 mm2:
    Rosenstiel, Contemporary Fixed Prosthodontics). One alloy throughout.

    Parameters
    ----------
    teeth_mm
        Centres (n, 2) of the teeth in the order of the arch, n at least 2.
    """
    material = choose_material(rng, materials, ("goldalloy", "au", "cocrmo"))
    pieces = [Piece(band(teeth_mm, rng.uniform(3, 4)), material)]
    tangent = np.gradient(teeth_mm, axis=0)
    for (x, y), (dx, dy) in zip(teeth_mm.tolist(), tangent.tolist(), strict=True):
        unit = (Piece(superellipse(rng.uniform(3, 4.5), rng.uniform(3, 4.5), 3), material),)
        pieces += moved(unit, x, y, float(np.arctan2(dy, dx)))
    return tuple(pieces)


def dental_implant(rng: Generator, materials: Sequence[str], *, crowned: bool = False) -> Implant:
    """Dental implant end on, origin at its axis: a titanium screw of 3.3 to 5.0 mm, or above it the crown.

    Diameters of catalogues; ISO 14801 tests implants of this kind. A crown of 6 to 8 mm sits on an abutment as
    wide as the implant, which has another metal as a rule.
    """
    root = Piece(disc(rng.uniform(3.3, 5.0)), choose_material(rng, materials, ("ti",)))
    if not crowned:
        return (root,)
    half_x, half_y = rng.uniform(3, 4, 2)
    cap = Piece(superellipse(half_x, half_y, 3), choose_material(rng, materials, ("goldalloy", "au", "cocrmo")))
    return (cap, root)
