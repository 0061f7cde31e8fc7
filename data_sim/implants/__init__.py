"""Metal implants as polygons in mm: pieces and curves here, the families in a file for each part of the body."""

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece, Points, coverage, fine_masks, moved, rasterise
from data_sim.implants.shapes import arc, band, blob, disc, superellipse, threaded

__all__ = [
    "Implant",
    "Piece",
    "Points",
    "arc",
    "band",
    "blob",
    "choose_material",
    "coverage",
    "disc",
    "fine_masks",
    "moved",
    "rasterise",
    "superellipse",
    "threaded",
]
