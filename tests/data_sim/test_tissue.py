import numpy as np
import pytest

from data_sim.materials import linear_attenuation
from data_sim.tissue import split_tissue
from data_sim.units import mu_to_hu


def test_split_reproduces_attenuation_at_70_kev():
    hu = np.array([[-1000.0, -100, 0, 40, 100], [101, 500, 800, 1500, 3000]])
    water, bone = split_tissue(hu)
    assert water.dtype == bone.dtype == np.float32
    mu = water * float(linear_attenuation("water", 70.0)) + bone * float(linear_attenuation("bone", 70.0))
    np.testing.assert_allclose(mu_to_hu(mu), hu, atol=0.05)


def test_split_thresholds():
    water, bone = split_tissue([-500, 0, 100, 800, 1500, 2500])
    np.testing.assert_allclose(water, [0.5, 1.0, 1.1, 0.9, 0, 0], atol=1e-6)  # half of 1.8 at 800 HU
    assert np.all(bone[:3] == 0)
    assert np.all(bone[3:] > 0)
    # NIST's mass attenuation of bone between 60 and 80 keV, and of water (0.1929 / cm at 70 keV)
    mu_bone_per_cm = 1.92 * np.exp(np.interp(np.log(70), np.log([60, 80]), np.log([0.3148, 0.2229])))
    np.testing.assert_allclose(bone[4:], np.array([2.5, 3.5]) * 0.1929 / mu_bone_per_cm, rtol=0.02)


def test_padding_is_air():
    water, bone = split_tissue([-1000, -1500, -2000, -32768])
    assert not water.any()
    assert not bone.any()


def test_split_with_another_water():
    water, bone = split_tissue([0.0, 1500.0], mu_water_per_mm=0.02)
    assert water[0] == pytest.approx(1)
    assert bone[1] * float(linear_attenuation("bone", 70.0)) == pytest.approx(0.05, rel=1e-6)
