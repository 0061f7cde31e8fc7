"""Small databases from a coarse phantom: what is drawn, written, resumed and refused."""

import errno
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctmar import __version__, planning, sources
from ctmar.case_maker import write_cases
from ctmar.cluster import Cluster, has_dask
from ctmar.config import load_toml
from ctmar.database import list_cases, read_case, read_index
from ctmar.dicom.simulated import SERIES
from ctmar.errors import NoUsableSeriesError, OutputExistsError, UnsupportedInputError, UsageError
from ctmar.files import claimed
from ctmar.planning import PlacedCase, PlannedCase, place_case, plan
from ctmar.screening import Screened
from ctmar.simulation import preview, simulate
from ctmar.simulation_settings import SimulationSettings, read_request
from ctmar.sources import SourceSlice
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel
from data_sim.phantom import phantom_slice
from data_sim.projection import Projector
from data_sim.scanner import KERNEL
from data_sim.units import MU_WATER_PER_MM
from tests.ctmar.dicom.build import ct_dataset, save, write_ct_series

GRIDS = {"pelvis": ImageGrid(144, 144, 2.9), "head": ImageGrid(144, 144, 1.6)}
SETTINGS = SimulationSettings(cases=2, seed=1, implants=("clip",), views=90, bins=230)


@pytest.fixture(scope="module", autouse=True)
def small_phantom():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PHANTOM_PATIENTS", 2)
        patch.setattr(sources, "PHANTOM_SLICES_MM", (0.0,))
        patch.setattr(sources, "PHANTOM_GRIDS", GRIDS)
        patch.setattr(sources, "REGIONS", tuple(GRIDS))
        yield


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulation") / "db"
    result = simulate(["phantom"], out, SETTINGS, device="cpu")
    return out, result


def arrays(path):
    """Every array of a case by name."""
    case = read_case(path)
    found = {name: getattr(case, name) for name in ("sinogram_metal", "sinogram_reference", "mask_metal", "mask_body")}
    found |= {f"image/{name}": image for name, image in case.images.items()}
    return found | {f"dicom_path/{name}": image for name, image in case.dicom_images.items()}


def assert_same_arrays(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


# --- settings -------------------------------------------------------------------------------------


def test_scanners_by_name():
    assert SimulationSettings().scanner() == FanArc()
    assert SimulationSettings(geometry="flat", views=100).scanner() == FanFlat(views=100)
    assert SimulationSettings(geometry="parallel", bins=300).scanner() == Parallel(bins=300)
    assert SimulationSettings(geometry="parallel", arc_deg=360).scanner() == Parallel(arc_rad=2 * np.pi)
    assert SimulationSettings(geometry="parallel", fov_mm=250.0).scanner() == Parallel(bins=251)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cases": 0}, "cases must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"implants": ("hip", "nose")}, "unknown implant 'nose'"),
        ({"implants": ()}, "at least one implant"),
        ({"implants": ("own",)}, "unknown implant 'own'"),
        ({"materials": ("unobtainium",)}, "unknown material"),
        ({"materials": ()}, "at least one material"),
        ({"views": 0}, "views must be positive"),
        ({"bins": 4000}, "narrower than 180"),
        ({"bins": 500, "fov_mm": 250.0}, "give one of them"),
        ({"fov_mm": 700.0}, "what the scan sees, 528 mm"),
        ({"arc_deg": 180}, "fans turn once"),
        ({"geometry": "parallel", "scan": ScanSettings(mas=100.0)}, "mas needs a fan"),
    ],
)
def test_settings_refuse_nonsense(values, message):
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**values)


# --- the plan -------------------------------------------------------------------------------------


def screened(patient, name, *implants):
    def load():
        raise AssertionError("planning loads nothing")

    return Screened(SourceSlice(name, load), patient, GRIDS["pelvis"], implants, "" if implants else "nothing fits")


CANDIDATES = [
    screened("p1", "a", "hip", "clip"),
    *(screened("p2", f"b{k}", "clip") for k in range(20)),
    screened("p3", "c"),
]


def test_the_plan_draws_implants_and_patients_evenly():
    """A patient with twenty slices is drawn as often as one with one; what does not fit never is."""
    planned = plan(CANDIDATES, SimulationSettings(cases=600, implants=("hip", "clip", "dental")))
    assert [case.number for case in planned] == list(range(1, 601))
    assert planned[0].name == "case-000001"
    drawn = [(case.implant, case.screened.patient) for case in planned]
    assert set(drawn) == {("hip", "p1"), ("clip", "p1"), ("clip", "p2")}
    assert drawn.count(("hip", "p1")) == pytest.approx(300, abs=50)  # 4 sigma of 600 tosses
    assert drawn.count(("clip", "p1")) == pytest.approx(150, abs=45)
    assert len({case.screened.slice.name for case in planned}) == 21


def test_a_longer_plan_begins_like_a_shorter_one():
    short, long = (plan(CANDIDATES, SimulationSettings(cases=n, seed=5)) for n in (7, 30))
    assert long[:7] == short
    assert plan(CANDIDATES, SimulationSettings(cases=30, seed=6)) != long


def test_nothing_to_plan():
    with pytest.raises(NoUsableSeriesError, match="none of the slices has room for any of: dental"):
        plan(CANDIDATES, SimulationSettings(implants=("dental",)))


# --- a database -----------------------------------------------------------------------------------


def test_what_is_in_the_folder(database):
    out, result = database
    assert result.cases == ("case-000001", "case-000002")
    assert result.failed == result.skipped == ()
    assert sorted(p.name for p in out.iterdir()) == [
        "case-000001.h5",
        "case-000002.h5",
        "index.csv",
        "simulated.png",
        "simulation.toml",
    ]
    index = read_index(out)
    assert [row["case"] for row in index] == list(result.cases)
    for row, path in zip(index, list_cases(out), strict=True):
        case = read_case(path)
        assert row["patient"] == case.patient in ("phantom-0", "phantom-1")
        assert row["source"] == case.source
        assert case.source.startswith("phantom-")
        assert row["implant"] == case.implant == "clip"
        assert row["material"] == case.material
        assert case.material in SETTINGS.materials
        assert int(row["seed"]) == case.seed == 1
        assert row["left_out"] == ""
    settings = tomllib.loads((out / "simulation.toml").read_text())
    assert settings["sources"] == ["phantom"]
    assert settings["views"] == 90
    assert settings["scan"]["kvp"] == 120


def test_what_is_in_a_case(database):
    for path in list_cases(database[0]):
        case = read_case(path)
        assert case.geometry == FanArc(views=90, bins=230)
        assert case.mu_water_per_mm == MU_WATER_PER_MM
        assert set(case.images) == {*SETTINGS.images, "reference"}
        assert set(case.dicom_images) == set(SETTINGS.images)
        # the slice it says it comes from, which the narrow fan of 230 bins sees only the middle of
        _, region, seed, _ = case.source.split("-")
        assert case.grid == GRIDS[region]
        metal_free = phantom_slice(region, grid=case.grid, seed=int(seed), z_mm=0.0)
        assert case.patient == f"phantom-{seed}"
        assert metal_free[case.mask_metal].min() > -300  # inside the patient
        assert 0 < case.mask_metal.sum() < 200
        assert case.mask_body.mean() > 0.1
        # metal adds to the sinogram, and only there do the two differ by more than noise
        change = case.sinogram_metal - case.sinogram_reference
        assert change.max() > 0.05
        assert (change > 0.05).mean() < 0.3
        projector = Projector(case.geometry, case.grid, device="cpu")
        for name, sinogram in (("uncorrected", case.sinogram_metal), ("reference", case.sinogram_reference)):
            expected = projector.fbp(sinogram, window=KERNEL) / MU_WATER_PER_MM * 1000 - 1000
            np.testing.assert_allclose(case.images[name], expected, atol=0.2)
        stored = case.dicom_images["uncorrected"]
        np.testing.assert_array_equal(stored, np.clip(np.rint(case.images["uncorrected"]), -1024, 3071))


def test_cases_differ(database):
    one, two = (read_case(path) for path in list_cases(database[0]))
    assert not np.array_equal(one.mask_metal, two.mask_metal)
    assert not np.array_equal(one.sinogram_metal, two.sinogram_metal)


def test_the_same_seed_gives_the_same_bytes(database, tmp_path):
    simulate(["phantom"], tmp_path / "again", SETTINGS, device="cpu")
    for one, other in zip(list_cases(database[0]), list_cases(tmp_path / "again"), strict=True):
        assert_same_arrays(one, other)
    for name in ("index.csv", "simulation.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (database[0] / name).read_bytes()


def test_another_seed_gives_other_cases(database, tmp_path):
    simulate(["phantom"], tmp_path / "other", replace(SETTINGS, seed=2, cases=1), device="cpu")
    (other,) = list_cases(tmp_path / "other")
    for path in list_cases(database[0]):
        assert not np.array_equal(read_case(path).mask_metal, read_case(other).mask_metal)


# --- resuming -------------------------------------------------------------------------------------


@pytest.fixture
def copied(database, tmp_path):
    """A copy of the database that may be damaged."""
    return shutil.copytree(database[0], tmp_path / "db")


@pytest.mark.parametrize("damage", ["deleted", "cut in half", "cut to nothing", "cut at the end", "a wrong byte"])
def test_resuming_completes(database, copied, damage):
    path, kept = copied / "case-000002.h5", copied / "case-000001.h5"
    size = path.stat().st_size
    if damage == "deleted":
        path.unlink()
    elif damage == "a wrong byte":
        content = bytearray(path.read_bytes())
        content[size // 2] ^= 0xFF
        path.write_bytes(content)
    else:
        length = {"cut in half": size // 2, "cut to nothing": 0, "cut at the end": size - 1}[damage]
        path.write_bytes(path.read_bytes()[:length])
    (copied / "index.csv").unlink()
    (copied / ".case-000002.h5.1.partial").write_bytes(b"left behind")
    (copied / "dicom" / ".case-000001.1.partial" / "metal").mkdir(parents=True)
    before = kept.stat().st_mtime_ns
    steps = []
    result = simulate(
        ["phantom"], copied, SETTINGS, resume=True, device="cpu", progress=lambda *step: steps.append(step)
    )
    assert result.cases == database[1].cases
    assert kept.stat().st_mtime_ns == before  # what is complete is not made again
    assert path.read_bytes() == (database[0] / path.name).read_bytes()
    assert (copied / "index.csv").read_bytes() == (database[0] / "index.csv").read_bytes()
    assert not list(copied.rglob(".*"))
    assert [step[1:] for step in steps if step[0] == "screening slices"] == [(k, 4) for k in (1, 2, 3, 4)]
    assert [step[1:] for step in steps if step[0] == "simulating cases"] == [(1, 2), (2, 2)]


def test_a_folder_that_exists_is_not_touched(database, copied):
    (copied / "case-000001.h5").unlink()
    with pytest.raises(OutputExistsError, match="exists"):
        simulate(["phantom"], copied, SETTINGS)
    assert not (copied / "case-000001.h5").exists()


@pytest.mark.parametrize(
    "other",
    [
        replace(SETTINGS, cases=3),
        replace(SETTINGS, seed=2),
        replace(SETTINGS, bins=None),
        replace(SETTINGS, scan=ScanSettings(photons=1e6)),
        replace(SETTINGS, materials=("ti",)),
    ],
)
def test_other_settings_do_not_resume(copied, other):
    with pytest.raises(UsageError, match="other settings"):
        simulate(["phantom"], copied, other, resume=True)


def test_other_sources_do_not_resume(copied):
    with pytest.raises(UsageError, match="other settings"):
        simulate(["phantom", "elsewhere"], copied, SETTINGS, resume=True)


def test_a_folder_of_something_else_is_not_resumed(tmp_path):
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(UsageError, match=r"has no simulation\.toml"):
        simulate(["phantom"], tmp_path, SETTINGS, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_resuming_what_never_began(tmp_path):
    result = simulate(["phantom"], tmp_path / "db", replace(SETTINGS, cases=1), resume=True, device="cpu")
    assert result.cases == ("case-000001",)


# --- what is left out -----------------------------------------------------------------------------


def test_cases_that_find_no_place_are_listed_and_tried_again(database, tmp_path, monkeypatch):
    calls = []

    def place(name, image_hu, grid, rng, materials, shapes):
        calls.append(name)
        return None

    out = tmp_path / "db"
    with monkeypatch.context() as patch:
        patch.setattr(planning, "place", place)
        result = simulate(["phantom"], out, SETTINGS, device="cpu")
    assert result.cases == ()
    assert [name for name, _ in result.failed] == ["case-000001", "case-000002"]
    assert len(calls) == 20  # ten attempts each
    index = read_index(out)
    assert [row["case"] for row in index] == ["case-000001", "case-000002"]
    assert all("no place for the implant clip" in row["left_out"] for row in index)
    assert simulate(["phantom"], out, SETTINGS, resume=True, device="cpu").cases == database[1].cases
    assert_same_arrays(out / "case-000001.h5", database[0] / "case-000001.h5")


def test_slices_that_are_no_use_are_listed(tmp_path):
    """Beside a pelvis: air, metal and its neighbour, a table, a cut-off patient, a localizer, a reformat, a text."""
    pelvis = phantom_slice("pelvis", grid=GRIDS["pelvis"], seed=0, z_mm=0.0)
    air, metal, table = np.full_like(pelvis, -1000), pelvis.copy(), np.full_like(pelvis, -1000)
    metal[70:74, 70:74] = 3071
    table[100:107, 10:130] = 50
    folder = tmp_path / "in"
    write_ct_series(folder, np.stack([pelvis, air, table]), pixel_mm=2.9, spacing_mm=50)
    write_ct_series(folder / "b", np.stack([metal, pelvis]), pixel_mm=2.9, spacing_mm=4, series_uid="1.2.826.0.1.5")
    write_ct_series(folder / "c", pelvis[None, 40:100, 40:100], pixel_mm=2.9, series_uid="1.2.826.0.1.6")
    localizer, reformat = (ct_dataset(pelvis, series_uid=f"1.2.826.0.1.{k}", pixel_mm=2.9) for k in (7, 8))
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    reformat.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    save(localizer, folder / "localizer.dcm")
    save(reformat, folder / "sagittal.dcm")
    (folder / "notes.txt").write_text("hello")
    settings = replace(SETTINGS, cases=1)
    result = simulate([str(folder)], tmp_path / "db", settings, device="cpu")
    assert result.cases == ("case-000001",)
    reasons = sorted(reason.split(" (")[0] for _, reason in result.skipped)
    assert reasons == [
        "a coronal or sagittal reformat, not an axial image",
        "a localizer",
        "hardly any patient in it",
        "metal in a slice nearby",
        "metal: values of 3000 HU and above",
        "no patient, only things less than 30 mm thick, as a table is",
        "not a DICOM file",
        "the patient is cut off by the edge of the field of view",
    ]
    index = read_index(tmp_path / "db")
    assert sorted(row["left_out"] for row in index[1:]) == sorted(reason for _, reason in result.skipped)
    assert [row["case"] for row in index] == ["case-000001", *[""] * 8]


def test_sources_without_slices_write_no_database(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoUsableSeriesError):
        simulate([str(tmp_path / "empty")], tmp_path / "db", SETTINGS)


# --- the user's own shapes ------------------------------------------------------------------------


def test_shapes_add_the_family_own():
    assert SimulationSettings(implants=("hip",)).families == ("hip",)
    for implants in (("hip",), ("hip", "own"), ("own", "hip")):
        assert set(SimulationSettings(implants=implants, shapes=("a.png:1",)).families) == {"hip", "own"}
    assert SimulationSettings(implants=("own",), shapes=("a.png:1",)).families == ("own",)


def test_a_case_of_the_users_own_shape(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[5:15, 3:27] = True
    np.save(tmp_path / "bar.npy", mask)
    settings = replace(SETTINGS, cases=1, implants=("own",), shapes=(f"{tmp_path}/bar.npy:1.0",), materials=("fe",))
    result = simulate(["phantom"], tmp_path / "db", settings, device="cpu")
    assert result.cases == ("case-000001",)
    case = read_case(tmp_path / "db" / "case-000001.h5")
    assert (case.implant, case.material) == ("own", "fe")
    # a bar of 24 x 10 mm, and at most 3 pixels of 2.9 mm of bright edge all around it
    assert 0.7 * 24 * 10 <= case.mask_metal.sum() * case.grid.pixel_mm**2 < (24 + 17.4) * (10 + 17.4)
    mask[0, 0] = True
    np.save(tmp_path / "bar.npy", mask)
    with pytest.raises(UsageError, match="other settings"):
        simulate(["phantom"], tmp_path / "db", settings, device="cpu", resume=True)
    toml = (tmp_path / "db" / "simulation.toml").read_text()
    np.save(tmp_path / "bar.npy", mask & (np.arange(600).reshape(20, 30) > 0))
    (tmp_path / "db" / "simulation.toml").write_text(toml.replace(f'"{__version__}"', '"0.0.0"'))
    with pytest.raises(UsageError, match=r"was made by ctmar 0\.0\.0"):
        simulate(["phantom"], tmp_path / "db", settings, device="cpu", resume=True)
    with pytest.raises(UsageError, match="no such mask"):
        simulate(["phantom"], tmp_path / "no", replace(settings, shapes=("nowhere.npy:1.0",)))
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
@pytest.mark.skipif(not has_dask(), reason="dask is not installed (pip install ctmar[dask])")
def test_workers_make_the_same_database(tmp_path):
    """Two patients of different pixel size, so that there are two batches to share out."""
    for seed in (0, 1):
        image = phantom_slice("pelvis", grid=GRIDS["pelvis"], seed=seed, z_mm=0.0)
        write_ct_series(
            tmp_path / "in" / str(seed), image[None], pixel_mm=2.9 + 0.01 * seed, series_uid=f"1.2.826.0.1.{seed}"
        )
    settings = replace(SETTINGS, cases=4)
    for workers in (1, 2):
        with Cluster(workers) as cluster:
            simulate([str(tmp_path / "in")], tmp_path / str(workers), settings, cluster=cluster, device="cpu")
    one, two = (list_cases(tmp_path / str(workers)) for workers in (1, 2))
    assert len({read_case(path).grid for path in one}) == 2
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()


# --- the same again -------------------------------------------------------------------------------


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_database_is_rebuilt_from_its_settings_byte_for_byte(database, tmp_path):
    sources_, settings = read_request(load_toml(database[0] / "simulation.toml"), sources=[], overrides={}, scan={})
    simulate(sources_, tmp_path / "db", settings, device="cpu")
    assert content(tmp_path / "db") == content(database[0])


def test_a_case_does_not_depend_on_how_many_there_are(database, tmp_path):
    simulate(["phantom"], tmp_path / "db", replace(SETTINGS, cases=1), device="cpu")
    first = content(tmp_path / "db")["case-000001.h5"]
    assert first == content(database[0])["case-000001.h5"]


# --- preview --------------------------------------------------------------------------------------


def test_a_preview_scans_nothing_and_makes_room_for_the_database(database, tmp_path, monkeypatch):
    out = tmp_path / "db"
    with monkeypatch.context() as patch:
        patch.setattr("ctmar.case_maker.simulate_slices", None)
        for _ in range(2):  # once more is allowed
            result = preview(["phantom"], out, SETTINGS)
            assert result.cases == database[1].cases
            assert [p.name for p in out.iterdir()] == ["planned.png"]
    with Image.open(out / "planned.png") as picture:
        assert picture.size == (2 * 262 + 6, 282 + 6)
    simulate(["phantom"], out, replace(SETTINGS, cases=1), device="cpu")
    assert content(out)["case-000001.h5"] == content(database[0])["case-000001.h5"]
    assert (out / "planned.png").exists()
    with pytest.raises(OutputExistsError):
        preview(["phantom"], out, SETTINGS)


# --- DICOM ----------------------------------------------------------------------------------------


def test_dicom_is_added_to_what_is_there(database, copied):
    before = (copied / "case-000001.h5").stat().st_mtime_ns
    simulate(["phantom"], copied, SETTINGS, resume=True, dicom=True, device="cpu")
    assert (copied / "case-000001.h5").stat().st_mtime_ns == before
    files = {f"dicom/{case}/{series}/0001.dcm" for case in database[1].cases for series in SERIES}
    made = content(copied)
    assert {name for name in made if name.startswith("dicom")} == files
    shutil.rmtree(copied / "dicom" / "case-000002")
    simulate(["phantom"], copied, SETTINGS, resume=True, dicom=True, device="cpu")
    assert content(copied) == made


# --- trouble --------------------------------------------------------------------------------------


def test_two_at_once_in_one_folder(copied):
    with claimed(copied), pytest.raises(OutputExistsError, match="another process is writing to it"):
        simulate(["phantom"], copied, SETTINGS, resume=True, device="cpu")


def test_a_full_disk_leaves_whole_files_and_can_be_resumed(database, tmp_path, monkeypatch):
    out = tmp_path / "db"
    write_bytes = Path.write_bytes

    def full(path, data):
        write_bytes(path, data[: len(data) // 2])
        if "case-000002" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            simulate(["phantom"], out, SETTINGS, device="cpu")
    assert sorted(p.name for p in out.iterdir()) == ["case-000001.h5", "simulation.toml"]
    simulate(["phantom"], out, SETTINGS, resume=True, device="cpu")
    assert content(out) == content(database[0])


@pytest.mark.parametrize("left", ["nothing", ".simulation.toml.7.partial", ".planned.png.7.partial"])
def test_what_was_cut_short_at_once_can_be_begun_or_resumed(tmp_path, left):
    out = tmp_path / "db"
    out.mkdir()
    if left != "nothing":
        (out / left).write_text("half")
    simulate(["phantom"], out, replace(SETTINGS, cases=1), resume=True, device="cpu")
    assert not list(out.glob(".*"))


def test_a_source_that_goes_away_costs_its_cases_only(tmp_path):
    def load():
        if gone:
            raise UnsupportedInputError("b.dcm: cannot be opened; fetch it again.")
        return phantom_slice("pelvis", grid=GRIDS["pelvis"], seed=0, z_mm=0.0), GRIDS["pelvis"], "p"

    gone: list[int] = []
    case = PlannedCase(1, "clip", Screened(SourceSlice("b", load), "p", GRIDS["pelvis"], ("clip",)))
    assert isinstance(place_case(case, SETTINGS), PlacedCase)
    assert place_case(replace(case, screened=replace(case.screened, grid=GRIDS["head"])), SETTINGS) == (
        "the slice has changed since it was screened; start again"
    )
    gone.append(1)
    assert place_case(case, SETTINGS) == "b.dcm: cannot be opened; fetch it again."
    assert write_cases([case], out=tmp_path, settings=SETTINGS, device="cpu") == [
        ("case-000001", "b.dcm: cannot be opened; fetch it again.")
    ]


def test_patients_outside_the_field_of_view_are_counted(tmp_path):
    """A pelvis of the phantom is 340 mm and more across; 150 bins of 1 mrad see 89 mm."""
    narrow = replace(SETTINGS, cases=2, implants=("hip",), bins=150)
    assert preview(["phantom"], tmp_path / "narrow", narrow).truncated == 2
    assert preview(["phantom"], tmp_path / "wide", replace(narrow, bins=None)).truncated == 0
