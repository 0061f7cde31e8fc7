"""The methods by name: ours, and those that a user has registered."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctmar.errors import CtmarError, UsageError

if TYPE_CHECKING:
    from ctmar.methods import Correction

METHODS = ("uncorrected", "bhc", "li", "nmar1", "nmar2", "tv", "ebhc", "cnn", "cnn-mar")
"""In the order of the paper's tables, with our own before the networks."""

DEFAULT_METHOD = "cnn-mar"

NEEDS_NETWORK = ("cnn", "cnn-mar")

BLENDED = "cnn-mar-blended"
"""In tables: the default method as `ctmar correct` puts it into the image, see `ctmar.blending`."""

LIMIT = "limit"
"""In tables: the trace replaced with the reference image as prior, what no method can pass."""


@dataclass(frozen=True)
class OwnMethod:
    """A user's method: what computes its images, and whether it needs a network."""

    images: Callable[[Correction], NDArray[np.float32]]
    network: bool


_own: dict[str, OwnMethod] = {}


def register_method(name: str, images: Callable[[Correction], NDArray[np.float32]], *, network: bool = False) -> None:
    """Make a method of your own known to everything that goes by names: corrections, evaluation, the command line.

    Parameters
    ----------
    name
        Small letters, digits and hyphens. One of your own may be registered again; the later one counts.
    images
        From a `ctmar.methods.Correction` (sinogram, trace, images of other methods, ...) to corrected images in HU,
        (slices, rows, cols). The metal is put back afterwards.
    network
        Whether it asks for the images of a network, as ``correction.image("cnn")``.

    Raises
    ------
    ValueError
        Where the name is one of ours, or cannot be typed after ``--method``.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"a method's name is of small letters, digits and hyphens, not {name!r}")
    if name in (*METHODS, BLENDED, LIMIT, "reference", "corrected"):
        raise ValueError(f"{name!r} is a name of ctmar's own: choose another one")
    _own[name] = OwnMethod(images, network)


def is_own(name: str) -> bool:
    """Whether a user has registered a method of this name."""
    return name in _own


def own_images(name: str, correction: Correction) -> NDArray[np.float32]:
    """The images of a user's method.

    Raises
    ------
    UsageError
        Where it fails, or its images have another shape than the correction's.
    """
    try:
        images = np.asarray(_own[name].images(correction), np.float32)
    except CtmarError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        raise UsageError(f"the method {name} failed ({type(error).__name__} at {where}: {error})") from error
    if images.shape != correction.metal.shape:
        raise UsageError(f"the method {name} gives images {images.shape}, not {correction.metal.shape}")
    return images


def known_methods() -> tuple[str, ...]:
    """Names of all methods, ours first."""
    return (*METHODS, *_own)


def needs_network(name: str) -> bool:
    """Whether a method needs a trained network."""
    return name in NEEDS_NETWORK or (name in _own and _own[name].network)


def usable(names: Iterable[str], *, network: bool) -> list[str]:
    """Those of the methods that can be computed, with a `network` or without one."""
    return [name for name in names if network or not needs_network(name)]
