"""A headless Chromium and a report to open in it; skipped where there is none."""

import shutil

import numpy as np
import pytest

from ctmar.report import SlicePreview, render_report
from ctmar.results import SliceResult

SIDE = 64
SLICES = 4
WITH_METAL = (1, 2)

ROWS = [
    {"case": f"case-{k}", "path": "raw", "method": method, "rmse_hu": rmse + k, "rmse_body_hu": rmse, "ssim": 0.5}
    for k in range(3)
    for method, rmse in (("li", 46.0), ("cnn-mar", 9.5), ("nmar2", 120.0))
]


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium to open reports in")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def image_hu(number, offset=0.0):
    """A ramp of 4 HU a column, brighter with the number of the slice."""
    return np.tile(-120.0 + 4 * np.arange(SIDE), (SIDE, 1)) + 40 * number + offset


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    metal = np.zeros((SIDE, SIDE), bool)
    metal[20:24, 30:34] = True
    slices = []
    for k in range(SLICES):
        has = k in WITH_METAL
        more = {"prior_hu": image_hu(k, 8), "sinogram": np.ones((90, 60)), "trace": np.eye(90, 60) > 0} if has else {}
        after = image_hu(k, 100 if has else 0)
        slices.append(SlicePreview(f"slice {k + 1}", image_hu(k), after, image_hu(k, -40), metal & has, **more))
    results = [
        SliceResult(
            k + 1,
            "corrected" if k in WITH_METAL else "no metal",
            metal_mm2=16.0 * (k in WITH_METAL),
            measures={"mean_change_hu": 100.0} if k in WITH_METAL else {},
        )
        for k in range(SLICES)
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    render_report(
        path,
        title="A report",
        results=ROWS,
        slices=slices,
        settings={"method": "nmar2"},
        model_card={"name": "tiny"},
        warnings=["Something."],
        by_slice=results,
        metal={"source": "threshold"},
    )
    return path


@pytest.fixture
def page(browser, report):
    """The report, opened; whatever it says to the console or asks of a network fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 1400}, offline=True)
    opened = context.new_page()
    said = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.extend([request.url] * (not request.url.startswith(("file:", "data:")))))
    opened.goto(report.as_uri())
    opened.locator("#label", has_text="slice").wait_for()
    yield opened
    context.close()
    assert said == []
