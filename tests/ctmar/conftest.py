"""What several tests of the correction share."""

import pytest

from ctmar import console, method_names, network, slice_correction
from tests.ctmar.small import GEOMETRY, small_volumes


@pytest.fixture(scope="session")
def volumes():
    """Slices with metal and without, not to be changed."""
    return small_volumes()


@pytest.fixture
def small_fan(monkeypatch):
    """Images are reprojected with a scan that is quick."""
    monkeypatch.setattr(slice_correction, "reprojection_geometry", lambda grid: GEOMETRY)


@pytest.fixture(autouse=True)
def _nothing_stays():
    """Methods and architectures that a test registers are its own, and so is its silence."""
    console.be_quiet(False)
    registries = (method_names._own, network.ARCHITECTURES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
