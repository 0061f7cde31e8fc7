"""Metal artifact reduction in CT: corrections, network, DICOM, evaluation and command line.

What can be imported from here is the library's interface; the rest of the package may change. Names are loaded when
they are first used, so that ``import ctmar`` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ctmar.correction_settings import CorrectionSettings as CorrectionSettings
    from ctmar.interface import correct as correct
    from ctmar.interface import correct_series as correct_series
    from ctmar.interface import find_metal as find_metal
    from ctmar.method_names import register_method as register_method
    from ctmar.methods import Correction as Correction
    from ctmar.network import register_architecture as register_architecture
    from ctmar.results import SeriesResult as SeriesResult

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "correction_settings": ["CorrectionSettings"],
        "interface": ["correct", "correct_series", "find_metal"],
        "method_names": ["register_method"],
        "methods": ["Correction"],
        "network": ["register_architecture"],
        "results": ["SeriesResult"],
    },
)
