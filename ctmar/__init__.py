"""Metal artifact reduction in CT: corrections, network, DICOM, evaluation and command line.

What is named in `__all__` is the library's interface; the rest of the package may change. Names are loaded when they
are first used, so that ``import ctmar`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctmar.correction_settings import CorrectionSettings
    from ctmar.library import correct, correct_series, find_metal
    from ctmar.method_names import register_method
    from ctmar.methods import Correction
    from ctmar.network import register_architecture
    from ctmar.results import SeriesResult

__version__ = "0.1.0"

__all__ = [
    "Correction",
    "CorrectionSettings",
    "SeriesResult",
    "__version__",
    "correct",
    "correct_series",
    "find_metal",
    "register_architecture",
    "register_method",
]

_HOMES = {
    "Correction": "ctmar.methods",
    "CorrectionSettings": "ctmar.correction_settings",
    "SeriesResult": "ctmar.results",
    "correct": "ctmar.library",
    "correct_series": "ctmar.library",
    "find_metal": "ctmar.library",
    "register_architecture": "ctmar.network",
    "register_method": "ctmar.method_names",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ctmar' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
