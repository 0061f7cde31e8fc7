"""What several tests of the correction share."""

import pytest

from ctmar import slice_correction
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
def _nothing_stays(nothing_stays):
    """For every test in here."""
