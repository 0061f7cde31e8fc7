"""A field of view smaller than the scanner's: a narrower detector."""

from __future__ import annotations

from dataclasses import replace

from data_sim.geometry import Geometry


def narrowed(geometry: Geometry, fov_mm: float) -> Geometry:
    """The scan with as few bins as see the whole circle of diameter `fov_mm` about the isocentre in every view.

    Bins are taken from both ends; their size stays. What lies outside the circle is met by some views only: the
    projections are truncated, and filtered backprojection, which takes what is missing for air, shows a bright rim at
    the circle's edge, values that are too high in it, and nothing of use outside.

    Raises
    ------
    ValueError
        Where the diameter is not positive or exceeds what the scan sees.
    """
    one_view = replace(geometry, views=1)
    largest_mm = 2 * one_view.field_of_view_mm
    if not 0 < fov_mm <= largest_mm:
        raise ValueError(f"fov_mm must lie between 0 and what the scan sees, {largest_mm:.0f} mm, not {fov_mm}")
    too_few, enough = max(1, int(2 * abs(geometry.bin_offset))), geometry.bins
    while enough - too_few > 1:
        bins = (too_few + enough) // 2
        if 2 * replace(one_view, bins=bins).field_of_view_mm >= fov_mm:
            enough = bins
        else:
            too_few = bins
    return replace(geometry, bins=enough)
