"""What tests in several folders share."""

import pytest


@pytest.fixture
def nothing_stays():
    """Methods and architectures that a test registers are its own, and so is its silence."""
    from ctmar import console, method_names, network  # not for the tests of data_sim, which do not need torch

    console.be_quiet(False)
    registries = (method_names._own, network.ARCHITECTURES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
