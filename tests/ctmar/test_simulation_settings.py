"""Settings from files and flags, and the file that rebuilds a database."""

import tomllib
from dataclasses import replace

import pytest

from ctmar import __version__
from ctmar.errors import UsageError
from ctmar.simulation_settings import SimulationSettings, read_request, settings_text
from data_sim.acquisition import ScanSettings

SETTINGS = SimulationSettings(
    cases=7, seed=3, implants=("hip",), scan=ScanSettings(photons=1e6, detector="energy-integrating"), bins=400
)


def read(values, sources=(), overrides=None, scan=None):
    return read_request(values, sources=sources, overrides=overrides or {}, scan=scan or {})


def test_what_is_written_is_read_as_it_was():
    values = tomllib.loads(settings_text(["a b", "phantom"], SETTINGS))
    assert values["version"] == __version__
    assert read(values) == (["a b", "phantom"], SETTINGS)


def test_flags_win():
    values = tomllib.loads(settings_text(["a"], SETTINGS))
    sources, settings = read(values, ["b"], {"cases": 9}, {"kvp": 140})
    assert sources == ["b"]
    assert settings == replace(SETTINGS, cases=9, scan=replace(SETTINGS.scan, kvp=140))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at least one source"),
        ({"sources": "phantom"}, "sources must be a list"),
        ({"sources": [1]}, "sources must be a list"),
        ({"sources": ["phantom"], "scan": 3}, "scan must be a table"),
        ({"sources": ["phantom"], "sead": 3}, "there is no setting 'sead'; did you mean seed"),
        ({"sources": ["phantom"], "scan": {"foton": 3.0}}, "there is no setting 'foton'; did you mean photons"),
        ({"sources": ["phantom"], "cases": "many"}, "cases must be of type int"),
        ({"sources": ["phantom"], "implants": ["hipp"]}, r"unknown implant 'hipp': did you mean hip\?"),
        ({"sources": ["phantom"], "images": ["uncorrected", "nmar"]}, r"unknown image 'nmar': did you mean nmar"),
        ({"sources": ["phantom"], "images": ["li"]}, "images must include uncorrected"),
        ({"sources": ["phantom"], "geometry": "cone"}, "geometry must be one of arc, flat, parallel"),
    ],
)
def test_what_makes_no_sense(values, message):
    with pytest.raises(UsageError, match=message):
        read(values)
