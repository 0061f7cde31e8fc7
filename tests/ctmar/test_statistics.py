import csv

import numpy as np
import pytest

from ctmar import statistics
from ctmar.statistics import bootstrap_mean, group_means, paired_difference, size_class, worst_cases, write_statistics
from data_sim.placement import IMPLANTS


def test_independent_cases_give_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(50, 10, 400)
    estimate = bootstrap_mean(values, [f"p{k}" for k in range(400)])
    assert estimate.mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert estimate.high - estimate.mean == pytest.approx(half, rel=0.1)
    assert estimate.mean - estimate.low == pytest.approx(half, rel=0.1)
    assert (estimate.n, estimate.patients, estimate.unit) == (400, 400, "patient")


def test_many_slices_of_few_patients_are_no_more_than_few_patients():
    """20 patients with 50 equal slices each: the interval is that of 20 values."""
    of_patient = np.random.default_rng(1).normal(50, 10, 20)
    one = bootstrap_mean(of_patient, [f"p{k}" for k in range(20)])
    many = bootstrap_mean(np.repeat(of_patient, 50), [f"p{k}" for k in range(20) for _ in range(50)])
    assert (many.mean, many.low, many.high) == pytest.approx((one.mean, one.low, one.high))
    assert (many.n, many.patients) == (1000, 20)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(300):
        values = rng.exponential(10, 60)
        estimate = bootstrap_mean(values, [f"p{k}" for k in range(60)], seed=seed, samples=500, level=0.9)
        hits += estimate.low <= 10 <= estimate.high
    assert 0.83 < hits / 300 < 0.95


def test_one_patient_is_drawn_by_case_and_one_case_has_no_interval():
    estimate = bootstrap_mean([1.0, 2.0, 3.0], ["p", "p", "p"])
    assert (estimate.unit, estimate.patients) == ("case", 1)
    assert estimate.low < 2 < estimate.high
    alone = bootstrap_mean([4.0, float("nan")], ["p", "q"])
    assert (alone.mean, alone.n) == (4.0, 1)
    assert np.isnan(alone.low)
    assert np.isnan(bootstrap_mean([float("nan")], ["p"]).mean)
    with pytest.raises(ValueError, match="patients"):
        bootstrap_mean([1.0], [])
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([1.0], ["p"], level=1.0)


def test_the_seed_decides():
    values, patients = np.arange(30.0), [f"p{k}" for k in range(30)]
    assert bootstrap_mean(values, patients, seed=1) == bootstrap_mean(values, patients, seed=1)
    assert bootstrap_mean(values, patients, seed=1).low != bootstrap_mean(values, patients, seed=2).low


def rows():
    made = []
    for k, (material, implant, area) in enumerate(
        [("ti", "hip", 80.0), ("ti", "clip", 100.0), ("au", "dental", 101.0), ("au,ti", "hip", 501.0)]
    ):
        for path, method, value in (
            ("raw", "li", 10.0 * k),
            ("raw", "cnn-mar", 10.0 * k - 2 - k),
            ("dicom", "li", 99.0),
        ):
            made.append(
                {"case": f"c{k}", "path": path, "method": method, "rmse_hu": value, "bone_dice": None if k else 0.5,
                 "patient": f"p{k % 3}", "material": material, "implant": implant, "metal_mm2": area}
            )  # fmt: skip
    return made


def found(table, **values):
    (row,) = [row for row in table if all(row[name] == value for name, value in values.items())]
    return row


def test_groups_by_metal_size_and_implant():
    everything = group_means(rows())
    assert found(everything, path="raw", method="li", metric="rmse_hu")["mean"] == 15
    assert found(everything, path="raw", method="li", metric="bone_dice")["n"] == 1
    assert {row["metric"] for row in everything} == {"rmse_hu", "bone_dice"}
    metals = group_means(rows(), by="material", metrics=["rmse_hu"])
    assert [row["group"] for row in metals] == ["au"] * 3 + ["mixed"] * 3 + ["ti"] * 3
    assert found(metals, group="ti", path="raw", method="li")["mean"] == 5
    sizes = group_means(rows(), by="size", metrics=["rmse_hu"])
    assert [row["group"] for row in sizes][::3] == ["small", "medium", "large"]
    assert found(sizes, group="small", path="raw", method="li")["n"] == 2
    implants = group_means(rows(), by="implant", metrics=["rmse_hu"])
    assert found(implants, group="hip", path="raw", method="li")["mean"] == 15
    regions = group_means(rows(), by="region", metrics=["rmse_hu"])
    assert list(dict.fromkeys(row["group"] for row in regions)) == ["hip", "soft tissue", "teeth"]
    with pytest.raises(ValueError, match="all, material, size, region, implant"):
        group_means(rows(), by="colour")


def test_every_family_has_its_region():
    assert set(IMPLANTS) - set(statistics.REGIONS) == {"plate", "random"}
    assert set(statistics.REGIONS) <= set(IMPLANTS)
    assert statistics.group_of({"implant": "own"}, "region") == statistics.ANYWHERE


def test_sizes():
    assert [size_class(area) for area in (0, 100, 100.1, 500, 501)] == ["small", "small", "medium", "medium", "large"]


def test_a_difference_is_taken_within_each_case():
    estimate = paired_difference(rows(), "rmse_hu", "cnn-mar", "li", path="raw")
    assert estimate.mean == pytest.approx(-3.5)
    # the cases differ by 30 HU, their differences by 3
    assert -5.5 < estimate.low < estimate.high < -2
    assert paired_difference(rows(), "rmse_hu", "cnn-mar", "li", path="dicom").n == 0


def test_the_worst_cases_come_first():
    worst = worst_cases(rows(), method="li", path="raw", metric="rmse_hu", count=2)
    assert [row["case"] for row in worst] == ["c3", "c2"]


def test_statistics_on_disk(tmp_path):
    write_statistics(rows(), tmp_path)
    with (tmp_path / "statistics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["by"] for row in table} == set(statistics.GROUPS)
    row = found(table, by="material", group="ti", path="raw", method="li", metric="rmse_hu")
    assert (float(row["mean"]), row["n"], row["patients"]) == (5.0, "2", "2")
