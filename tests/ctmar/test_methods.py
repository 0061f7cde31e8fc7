"""The methods end to end, on two iron balls in a simulated pelvis of water."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_fill_holes

from ctmar.config import UseSettings
from ctmar.interpolation import interpolate_trace
from ctmar.method_names import DEFAULT_METHOD, METHODS
from ctmar.methods import Correction
from ctmar.segmentation import dilate
from ctmar.streaks import without_streaks
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel
from data_sim.implants import Piece
from data_sim.implants import disc as circle
from data_sim.phantom import phantom_slice
from data_sim.projection import Projector
from data_sim.scanner import KERNEL, simulate_slices
from data_sim.single_slice import simulate
from data_sim.units import MU_WATER_PER_MM
from tests.data_sim.analytic import Ellipse, disc, raster

GRID = ImageGrid(128, 128, 3.0)
GEOMETRIES = (
    FanArc(views=180, bins=250, bin_pitch_rad=0.003),
    FanFlat(views=180, bins=250, bin_pitch_mm=3.2),
    Parallel(views=180, bins=250, bin_pitch_mm=1.6),
)
PELVIS = Ellipse(1050, 0, 0, 160, 110)
CLASSICAL = ("uncorrected", "bhc", "li", "nmar1", "nmar2")
ITERATED = "tv"


class Hip:
    """A simulated slice, and the errors of images of it."""

    def __init__(self, geometry):
        image = -1000 + raster(GRID, PELVIS, disc(500, -85, 0, 28), disc(500, 85, 0, 28), disc(500, 0, -70, 22))
        balls = (Piece(circle(30.0, -85.0, 0.0), "fe"), Piece(circle(24.0, 85.0, 10.0), "fe"))
        self.truth_hu = image.astype(np.float32)[None]
        self.projector = Projector(geometry, GRID, device="cpu")
        self.scan = simulate_slices(
            self.truth_hu,
            GRID,
            [balls],
            [np.random.default_rng(0)],
            geometry=geometry,
            settings=ScanSettings(),
            device="cpu",
        )
        self.roi = (raster(GRID, PELVIS) > 1000) & ~dilate(self.scan.metal[0], 2)

    def rmse_hu(self, image):
        error = (image[0] - self.scan.reference_hu[0])[self.roi]
        return float(np.sqrt(np.mean(error.astype(float) ** 2)))

    def raw(self, **options):
        s = self.scan
        metal = options.pop("metal", s.metal)
        return Correction(
            s.sinogram_metal, s.uncorrected_hu, metal, self.projector, mu_water_per_mm=MU_WATER_PER_MM, **options
        )

    def dicom(self, **options):
        s = self.scan
        metal = options.pop("metal", s.metal)
        return Correction.of_image(s.stored_hu, metal, self.projector, mu_water_per_mm=MU_WATER_PER_MM, **options)


@pytest.fixture(scope="module", params=GEOMETRIES, ids=lambda g: g.type)
def any_hip(request):
    return Hip(request.param)


@pytest.fixture(scope="module")
def hip():
    return Hip(GEOMETRIES[0])


class Oracle:
    """A network that knows the answer, up to an offset in the whole image; it remembers what it was given."""

    channels = ("uncorrected", "bhc", "li")
    use = UseSettings()
    first = None

    def __init__(self, answer_hu):
        self.answer_hu, self.seen = answer_hu, []

    def __call__(self, images_hu, metal):
        self.seen.append((images_hu, metal))
        return self.answer_hu


# --- from raw data --------------------------------------------------------------------------------


def test_better_methods_have_smaller_errors(any_hip):
    error = {name: any_hip.rmse_hu(image) for name, image in any_hip.raw().images(CLASSICAL).items()}
    assert error["uncorrected"] > error["bhc"] > error["li"] > error["nmar2"]
    assert error["uncorrected"] > error["nmar1"] > error["nmar2"]
    assert error["uncorrected"] > 100  # HU: there is an artifact to correct
    assert error["nmar2"] < 0.1 * error["uncorrected"]
    limit = any_hip.rmse_hu(any_hip.raw().replace_with_prior(any_hip.scan.reference_hu))
    assert limit < 0.5 * error["nmar2"]
    quotient = any_hip.raw().replace_with_prior(any_hip.scan.reference_hu, normalized=True)
    assert any_hip.rmse_hu(quotient) < 0.5 * error["nmar2"]


def test_raw_images_are_reconstructions_of_the_corrected_sinogram(hip):
    """`uncorrected + FBP(p' - p)` is FBP(p')."""
    correction = hip.raw()
    expected = hip.projector.fbp(correction.li_sinogram, window=KERNEL) / MU_WATER_PER_MM * 1000 - 1000
    free = ~hip.scan.metal
    np.testing.assert_allclose(correction.image("li")[free], expected[free], atol=0.1)


def test_the_trace_holds_all_rays_through_the_balls(hip):
    """Rays that pass a ball's centre nearer than its radius, worked out from the case file's formulas."""
    k, d = np.indices(hip.projector.geometry.shape)
    g = (d - 249 / 2) * 0.003
    b = 2 * np.pi * k / 180
    met = np.zeros(b.shape, bool)
    for radius, x, y in ((15, -85, 0), (12, 85, 10)):
        met |= np.abs(x * np.cos(b + g) + y * np.sin(b + g) - 595 * np.sin(g)) < radius
    trace = hip.raw().trace[0]
    assert trace[met].all()
    assert trace.sum() < 1.4 * met.sum()  # one pixel of 3 mm of interpolation on balls of 30 and 24 mm
    np.testing.assert_array_equal(hip.raw().li_sinogram, interpolate_trace(hip.scan.sinogram_metal, hip.raw().trace))


def test_the_mask_is_grown_for_the_trace_only(hip):
    """By one pixel where there is no raw data; the path length stays that of the mask."""
    plain, grown = hip.raw(), hip.raw(grow=1)
    expected = hip.projector.forward(binary_dilation(hip.scan.metal[0])) > 0  # scipy's default is the cross
    np.testing.assert_array_equal(grown.trace[0], expected)
    np.testing.assert_array_equal(hip.dicom().trace[0], expected)
    np.testing.assert_array_equal(plain.trace[0], hip.projector.forward(hip.scan.metal[0]) > 0)
    np.testing.assert_array_equal(grown.path_mm, plain.path_mm)
    assert expected.sum() > 1.1 * plain.trace.sum()


# --- from the stored image ------------------------------------------------------------------------


def test_the_dicom_path_helps_less_but_helps(any_hip):
    correction = any_hip.dicom()
    error = {name: any_hip.rmse_hu(image) for name, image in correction.images(CLASSICAL).items()}
    assert error["nmar2"] < 0.5 * error["uncorrected"]
    assert error["li"] < 0.5 * error["uncorrected"]
    assert error["bhc"] < error["uncorrected"]
    limit = any_hip.rmse_hu(correction.replace_with_prior(any_hip.scan.reference_hu))
    assert limit < error["nmar2"]
    assert any_hip.rmse_hu(any_hip.raw().image("nmar2")) < limit  # raw data hold more than the image does


# --- what holds on either path --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["raw", "dicom"])
def test_metal_stays_in_place(hip, path):
    correction = getattr(hip, path)(restorer=Oracle(hip.scan.reference_hu))
    uncorrected = correction.image("uncorrected")
    for name in METHODS:
        image = correction.image(name)
        assert image.dtype == np.float32
        assert image.shape == uncorrected.shape
        np.testing.assert_array_equal(image[hip.scan.metal], uncorrected[hip.scan.metal])
    prior = correction.replace_with_prior(hip.scan.reference_hu)
    np.testing.assert_array_equal(prior[hip.scan.metal], uncorrected[hip.scan.metal])


@pytest.mark.parametrize("path", ["raw", "dicom"])
def test_without_metal_nothing_changes(hip, path):
    correction = getattr(hip, path)(metal=np.zeros_like(hip.scan.metal), restorer=Oracle(hip.scan.reference_hu))
    assert not correction.trace.any()
    for name in METHODS:
        if name != "cnn":  # a network sees the whole image
            np.testing.assert_array_equal(correction.image(name), correction.image("uncorrected"))
    np.testing.assert_array_equal(correction.replace_with_prior(hip.scan.reference_hu), correction.image("uncorrected"))


def test_a_stack_gives_what_its_slices_give(hip):
    """A slice without metal, or with other metal, beside it changes nothing."""
    s = hip.scan
    other = np.roll(s.metal, 9, axis=1)
    stack = Correction(
        np.concatenate([s.sinogram_metal, s.sinogram_reference, s.sinogram_metal]),
        np.concatenate([s.uncorrected_hu, s.reference_hu, s.uncorrected_hu]),
        np.concatenate([s.metal, np.zeros_like(s.metal), other]),
        hip.projector,
        mu_water_per_mm=MU_WATER_PER_MM,
    )
    alone = hip.raw()
    for name in (*CLASSICAL, "ebhc"):
        together = stack.image(name)
        np.testing.assert_allclose(together[:1], alone.image(name), atol=0.05)
        np.testing.assert_array_equal(together[1:2], s.reference_hu)
        np.testing.assert_allclose(together[2:], hip.raw(metal=other).image(name), atol=0.05)


# --- total variation -------------------------------------------------------------------------------


def test_total_variation_improves_on_nmar2_and_not_beyond_the_limit(any_hip):
    correction = any_hip.raw()
    error = any_hip.rmse_hu(correction.image(ITERATED))
    limit = any_hip.rmse_hu(any_hip.raw().replace_with_prior(any_hip.scan.reference_hu))
    assert limit < error < any_hip.rmse_hu(correction.image("nmar2"))


def test_total_variation_starts_from_the_slice_itself_in_any_stack(hip):
    s = hip.scan
    twice = Correction(
        np.repeat(s.sinogram_metal, 2, axis=0),
        np.repeat(s.uncorrected_hu, 2, axis=0),
        np.repeat(s.metal, 2, axis=0),
        hip.projector,
        mu_water_per_mm=MU_WATER_PER_MM,
    ).image(ITERATED)
    np.testing.assert_allclose(twice[1], hip.raw().image(ITERATED)[0], atol=0.05)
    np.testing.assert_array_equal(twice[0][s.metal[0]], s.uncorrected_hu[0][s.metal[0]])


def test_what_fills_the_trace_is_told(hip):
    correction = hip.raw(restorer=Oracle(hip.scan.reference_hu))
    for method in ("nmar1", "nmar2", ITERATED, "cnn-mar"):
        prior = correction.prior_of(method)
        assert prior.shape == hip.scan.metal.shape
        assert np.abs(prior[hip.scan.metal]).max() < 1000  # no metal in it
    assert correction.prior_of("li") is correction.prior_of("cnn") is correction.prior_of("ebhc") is None
    correction.restorer.use = UseSettings(raw="image")
    assert hip.raw(restorer=correction.restorer).prior_of("cnn-mar") is None


def test_what_a_network_is_judged_beside_is_the_best_that_it_has_seen(hip):
    network = Oracle(hip.scan.reference_hu)
    correction = hip.raw(restorer=network)
    assert correction.fallback_hu("cnn-mar") is correction.uncorrected_hu
    network.channels = ("uncorrected", "ebhc")
    assert correction.fallback_hu("cnn-mar") is correction.image("ebhc")
    assert correction.fallback_hu("nmar2") is hip.scan.uncorrected_hu


# --- networks -------------------------------------------------------------------------------------


def test_the_network_sees_its_channels_and_the_prior_makes_up_for_it(hip):
    oracle = Oracle(hip.scan.reference_hu + 30)
    correction = hip.raw(restorer=oracle)
    assert DEFAULT_METHOD == "cnn-mar"
    cnn, cnn_mar = correction.image("cnn"), correction.image("cnn-mar")
    ((inputs, metal),) = oracle.seen  # asked once
    assert tuple(inputs) == oracle.channels
    for name, image in inputs.items():
        np.testing.assert_array_equal(image, hip.raw().image(name))
    np.testing.assert_array_equal(metal, hip.scan.metal)
    np.testing.assert_array_equal(cnn[~metal], oracle.answer_hu[~metal])
    assert hip.rmse_hu(cnn) == pytest.approx(30, abs=0.1)
    # the join with measured data takes most of the offset out
    assert hip.rmse_hu(cnn_mar) < 10


def test_a_second_network_sees_the_result_of_the_first(hip):
    first, second = Oracle(hip.scan.reference_hu + 60), Oracle(hip.scan.reference_hu)
    second.channels, second.first = ("uncorrected", "li", "cnn-mar"), first
    correction = hip.raw(restorer=second)
    correction.image("cnn-mar")
    ((inputs, _),) = second.seen
    assert tuple(inputs) == second.channels
    np.testing.assert_array_equal(inputs["cnn-mar"], hip.raw(restorer=first).image("cnn-mar"))
    np.testing.assert_array_equal(correction.image("cnn"), hip.raw(restorer=second).image("cnn"))


def test_prior_of_a_good_network_is_the_body(hip):
    """Noise-free water where there is water."""
    prior = hip.raw(restorer=Oracle(hip.scan.reference_hu)).prior_hu()[0]
    water = (np.abs(hip.truth_hu[0] - 50) < 1) & hip.roi
    assert prior[water].std() < hip.scan.reference_hu[0][water].std()
    assert prior[30:34, 62:66].mean() == pytest.approx(50, abs=10)


def test_the_image_may_be_the_prior_as_it_is(hip):
    oracle = Oracle(hip.scan.reference_hu)
    oracle.use = UseSettings(prior="image")
    prior = hip.raw(restorer=oracle).prior_hu()
    far = ~dilate(hip.scan.metal[0], 3)
    np.testing.assert_array_equal(prior[0][far], hip.scan.reference_hu[0][far])


@pytest.mark.parametrize("path", ["raw", "dicom"])
def test_the_image_may_be_the_result_on_either_path(hip, path):
    oracle = Oracle(hip.scan.reference_hu + 30)
    oracle.use = UseSettings(**{path: "image"})
    for name, correction in (("raw", hip.raw(restorer=oracle)), ("dicom", hip.dicom(restorer=oracle))):
        same = np.array_equal(correction.image("cnn-mar"), correction.image("cnn"))
        assert same == (name == path)


@pytest.mark.parametrize("path", ["raw", "dicom"])
def test_the_mean_of_image_and_replacement_may_be_the_result(hip, path):
    oracle = Oracle(hip.scan.reference_hu + 30)
    replaced = getattr(hip, path)(restorer=oracle).image("cnn-mar")
    oracle.use = UseSettings(**{path: "mean"})
    correction = getattr(hip, path)(restorer=oracle)
    mean, network = correction.image("cnn-mar")[0], correction.image("cnn")[0]
    body = binary_fill_holes(hip.truth_hu[0] > -300)
    inside = ~dilate(~body, 2)
    np.testing.assert_allclose(mean[inside], ((replaced[0] + network) / 2)[inside], atol=0.01)
    around = network if path == "dicom" else (replaced[0] + network) / 2  # there it shows the fewest streaks
    np.testing.assert_allclose(mean[~dilate(body, 3)], around[~dilate(body, 3)], atol=0.01)
    assert correction.prior_of("cnn-mar") is not None


def test_from_images_the_prior_is_fitted(hip):
    """More than one replacement of the trace: streaks of the true prior's difference go further."""
    correction = hip.dicom()
    once = without_streaks(
        correction.uncorrected_hu,
        hip.scan.reference_hu,
        correction.trace,
        hip.projector,
        mu_water_per_mm=MU_WATER_PER_MM,
        steps=1,
    )
    fitted = correction.replace_with_prior(hip.scan.reference_hu)
    assert hip.rmse_hu(fitted) < 0.85 * hip.rmse_hu(once)


@pytest.mark.parametrize("method", ["cnn", "cnn-mar"])
def test_networks_are_needed_where_they_are(hip, method):
    with pytest.raises(ValueError, match="need a network"):
        hip.raw().image(method)


# --- shared parts and mistakes --------------------------------------------------------------------


def test_known_images_are_not_computed_again(hip):
    known = {"li": np.full_like(hip.scan.uncorrected_hu, 7), "uncorrected": np.zeros_like(hip.scan.uncorrected_hu)}
    correction = hip.raw(known=known)
    assert correction.image("li") is known["li"]
    np.testing.assert_array_equal(correction.image("uncorrected"), hip.scan.uncorrected_hu)
    assert not np.array_equal(correction.image("nmar2"), hip.raw().image("nmar2"))  # whose prior comes from LI


def test_images_are_computed_once(hip, caplog):
    correction = hip.raw()
    with caplog.at_level("DEBUG", "ctmar.methods"):
        assert correction.image("nmar2") is correction.images(["li", "nmar2"])["nmar2"]
    # -vv tells where the time goes
    assert [record.message.split(":")[0] for record in caplog.records] == ["li", "nmar2"]


def test_unknown_methods(hip):
    with pytest.raises(ValueError, match="unknown method 'magic': expected one of uncorrected, bhc"):
        hip.raw().image("magic")


def test_stacks_that_do_not_belong_together(hip):
    s = hip.scan
    for sinogram, image, metal in (
        (s.sinogram_metal[0], s.uncorrected_hu[0], s.metal[0]),
        (s.sinogram_metal, s.uncorrected_hu, np.repeat(s.metal, 2, axis=0)),
        (np.repeat(s.sinogram_metal, 2, axis=0), s.uncorrected_hu, s.metal),
    ):
        with pytest.raises(ValueError, match="as many slices"):
            Correction(sinogram, image, metal, hip.projector, mu_water_per_mm=MU_WATER_PER_MM)


def test_nothing_grows_where_the_scan_does_not_see_the_patient():
    """Raw data of a narrow fan: outside of it reconstructions mean nothing, and eight rounds would make it 2700 HU."""
    grid = ImageGrid(144, 144, 2.9)
    geometry = FanArc(views=180, bins=230)
    metal = np.zeros(grid.shape, bool)
    metal[70:74, 75:79] = True
    case = simulate(
        phantom_slice("pelvis", grid=grid, seed=2),
        pixel_mm=2.9,
        implant=metal,
        material="fe",
        geometry=geometry,
        device="cpu",
    )
    correction = Correction(
        case.sinogram_metal[None],
        case.uncorrected_hu[None],
        case.metal[None],
        Projector(geometry, grid, device="cpu"),
        mu_water_per_mm=MU_WATER_PER_MM,
    )
    seen = np.hypot(grid.x_mm(), grid.y_mm()[:, None]) < geometry.field_of_view_mm
    error = {
        name: np.sqrt(np.mean((correction.image(name)[0] - case.reference_hu)[seen & ~case.metal] ** 2))
        for name in ("uncorrected", "tv", "ebhc")
    }
    assert max(error["tv"], error["ebhc"]) < 1.5 * error["uncorrected"]
    np.testing.assert_array_equal(correction.image("ebhc")[0][~seen], case.uncorrected_hu[~seen])


def test_ebhc_shows_its_target_beside_metal_and_where_the_scanner_has_cut_streaks_off(hip):
    target_hu = hip.dicom().image("li")
    correction = hip.dicom(known={"tv": target_hu})
    image_hu = correction.image("ebhc")
    beside = binary_dilation(hip.scan.metal[0]) & ~hip.scan.metal[0]
    np.testing.assert_array_equal(image_hu[0][beside], target_hu[0][beside])
    dark = (hip.scan.stored_hu[0] == -1024) & hip.roi
    assert dark.sum() > 20
    shown = image_hu[0][dark]
    measured = np.abs(shown + 1024) <= 50.01
    np.testing.assert_array_equal(shown[~measured], target_hu[0][dark][~measured])
    assert not measured.all()


def test_what_is_certain_does_not_count_in_the_fit(hip):
    """Pixels beside the metal that are known to be right, such as enamel, are none that hardening has drawn."""
    target = hip.dicom().image("nmar2")
    certain = np.zeros_like(hip.scan.metal)
    certain[0, 50:70, 60:70] = True
    spoiled = target + 3000 * certain
    elsewhere = hip.roi & ~certain[0]
    for given, change in ((certain, 0.0), (None, 100.0)):
        one, other = (hip.dicom(known={"tv": tv}, certain=given).image("ebhc")[0] for tv in (target, spoiled))
        assert np.abs(one - other)[elsewhere].max() >= change
        if given is not None:
            np.testing.assert_allclose(one[elsewhere], other[elsewhere], atol=1e-3)


@pytest.mark.parametrize("region", ["chest", "pelvis"])
def test_titanium_in_bone_is_best_corrected_by_what_its_rays_have_measured(region):
    """Two rods beside the spine, or a stem in a femur: replacing their trace loses bone."""
    grid = ImageGrid(200, 200, 2.0)
    places = {"chest": ((-25, 60), (25, 60)), "pelvis": ((-95, 10), (-75, 10))}[region]
    geometry = FanArc(views=360, bins=400, bin_pitch_rad=0.0019)
    scan = simulate_slices(
        phantom_slice(region, grid=grid, seed=2)[None],
        grid,
        [[Piece(circle(7.0, x, y), "ti") for x, y in places]],
        [np.random.default_rng(0)],
        geometry=geometry,
        settings=ScanSettings(),
        device="cpu",
    )
    projector = Projector(geometry, grid, device="cpu")
    roi = (scan.reference_hu[0] > -300) & ~scan.metal[0]
    for images in (
        Correction(scan.sinogram_metal, scan.uncorrected_hu, scan.metal, projector, mu_water_per_mm=MU_WATER_PER_MM),
        Correction.of_image(scan.stored_hu, scan.metal, projector, mu_water_per_mm=MU_WATER_PER_MM),
    ):
        error = {
            name: np.sqrt(np.mean((images.image(name)[0] - scan.reference_hu[0])[roi] ** 2))
            for name in (*CLASSICAL, "tv", "ebhc")
        }
        assert error["ebhc"] < 0.9 * min(error[name] for name in (*CLASSICAL, "tv"))
