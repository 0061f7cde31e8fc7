"""What this installation can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from ctmar import __version__
from ctmar.weights import list_models
from data_sim.projection import choose_device

_PACKAGES = ("torch", "numba", "astra-toolbox", "numpy", "scikit-image", "pydicom", "h5py", "xraydb")
_OPTIONAL = {
    "highdicom": "ctmar[seg]",
    "nibabel": "ctmar[nifti]",
    "distributed": "ctmar[dask]",
    "pynetdicom": "ctmar[pacs]",
}


def collect() -> dict[str, Any]:
    """Version, devices, backends and what is missing, models and their hashes."""
    import torch

    device, why = choose_device("auto")
    return {
        "ctmar": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "projections": f"{device} ({'ASTRA' if device == 'cuda' else 'numba'}; {why})",
        "network": f"torch {torch.__version__} on {'cuda' if torch.cuda.is_available() else 'cpu'}",
        "packages": {name: _version(name) or "missing" for name in _PACKAGES},
        "optional": {
            name: _version(name) or f"not installed; pip install {extra}" for name, extra in _OPTIONAL.items()
        },
        "models": {
            name: f"{card.arch}, channels {', '.join(card.channels)}, path {card.path}, sha256 {card.sha256}"
            for name, card in list_models().items()
        },
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
