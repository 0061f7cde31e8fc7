"""The report in a browser: what its controls do to what is seen."""

import numpy as np
import pytest

from tests.browser.conftest import SIDE, SLICES, image_hu


def greys(page, side="left"):
    """What a canvas shows, (rows, cols)."""
    values = page.evaluate(
        """(side) => { const c = document.getElementById(side);
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, k) => k % 4 === 0); }""",
        side,
    )
    return np.array(values).reshape(SIDE, SIDE)


def expected(hu, level=40.0, width=400.0):
    return np.rint(255 * np.clip((hu - level) / width + 0.5, 0, 1))


def label(page):
    return page.text_content("#label")


def wait_for(page, name):
    page.locator("#label", has_text=name).wait_for()


def set_slider(page, name, value):
    page.locator(f"#{name}").fill(str(value))


def choose(page, text):
    page.get_by_text(text, exact=True).click()


def test_it_opens_at_a_slice_with_metal_and_shows_its_hu(page):
    assert label(page) == "slice 2"
    np.testing.assert_allclose(greys(page), expected(image_hu(1)), atol=1)
    np.testing.assert_allclose(greys(page, "right"), expected(image_hu(1, 100)), atol=1)
    assert page.locator(".warnings").bounding_box()["y"] < page.locator("table").first.bounding_box()["y"]


def test_the_divider_follows_mouse_and_keys(page):
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.up()
    assert float(page.input_value("#cut")) == pytest.approx(25, abs=0.6)
    line = page.locator(".line").bounding_box()
    assert line["x"] == pytest.approx(box["x"] + 0.25 * box["width"], abs=4)
    page.locator("#stage").press("ArrowRight")
    assert float(page.input_value("#cut")) == pytest.approx(27, abs=0.6)
    assert page.evaluate("getComputedStyle(document.getElementById('right')).clipPath").startswith(
        "inset(0px 0px 0px 27"
    )


def test_zoom_about_the_metal_and_where_one_looks(page):
    def side():
        return page.evaluate("document.getElementById('left').getBoundingClientRect().width")

    stage = page.locator("#stage").bounding_box()
    assert side() == pytest.approx(stage["width"], abs=1)
    set_slider(page, "zoom", 4)
    assert side() == pytest.approx(4 * stage["width"], abs=2)
    page.locator("#stage").hover()  # which scrolls to it
    stage = page.locator("#stage").bounding_box()
    # the metal's middle stays where it was, and the divider where it is seen
    x, y = 32 / SIDE, 22 / SIDE
    box = page.evaluate("(({x, y}) => ({x, y}))(document.getElementById('left').getBoundingClientRect())")
    assert box["x"] + 4 * stage["width"] * x == pytest.approx(stage["x"] + stage["width"] * x, abs=3)
    page.mouse.move(stage["x"] + x * stage["width"], stage["y"] + y * stage["height"])
    assert int(page.text_content("#value").split()[0]) == pytest.approx(image_hu(1, 100)[22, 32], abs=4)
    page.mouse.move(stage["x"] + (x + 0.4) * stage["width"], stage["y"] + y * stage["height"])
    column = int((x + 0.4 / 4) * SIDE)
    assert int(page.text_content("#value").split()[0]) == pytest.approx(image_hu(1, 100)[22, column], abs=4)
    page.locator("#stage").press("-")
    assert page.input_value("#zoom") == "3"
    page.mouse.dblclick(stage["x"] + 0.9 * stage["width"], stage["y"] + 0.2 * stage["height"])
    assert page.input_value("#zoom") == "6"


def test_slices_by_slider_keys_wheel_and_plot(page):
    set_slider(page, "slice", 3)
    wait_for(page, "slice 4")
    np.testing.assert_allclose(greys(page), expected(image_hu(3)), atol=1)
    np.testing.assert_array_equal(greys(page), greys(page, "right"))  # nothing changed in it
    page.locator("#stage").press("ArrowUp")
    wait_for(page, "slice 3")
    page.locator("#stage").hover()
    page.mouse.wheel(0, -100)
    wait_for(page, "slice 2")
    page.locator('.hit[data-slice="0"]').click()
    wait_for(page, "slice 1")
    assert page.text_content("#slice-value") == f"1 / {SLICES}"


def test_windows_by_choice_key_and_slider(page):
    choose(page, "Bone")
    np.testing.assert_allclose(greys(page), expected(image_hu(1), 400, 1800), atol=1)
    page.locator("#stage").press("4")
    np.testing.assert_allclose(greys(page), expected(image_hu(1), 40, 80), atol=1)
    assert page.is_checked("input[value=brain]")
    set_slider(page, "level", 100)
    np.testing.assert_allclose(greys(page), expected(image_hu(1), 100, 80), atol=1)
    assert page.is_checked("input[value=free]")
    assert page.text_content("#level-value") == "100 HU"


def test_what_is_compared(page):
    choose(page, "After | Reference")
    np.testing.assert_allclose(greys(page, "right"), expected(image_hu(1, -40)), atol=1)
    choose(page, "Prior | After")
    np.testing.assert_allclose(greys(page), expected(image_hu(1, 8)), atol=1)
    choose(page, "Before | Difference")
    assert np.unique(greys(page, "right")).tolist() == [191]  # 100 of +-200 HU
    set_slider(page, "slice", 0)
    wait_for(page, "slice 1")
    assert np.unique(greys(page, "right")).tolist() == [128]
    choose(page, "Prior | After")
    assert page.text_content("#left-tag") == "No prior for this slice"


def test_the_value_under_the_mouse(page):
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 10.5 / SIDE * box["width"], box["y"] + 0.5 * box["height"])
    assert page.text_content("#value") == f"{image_hu(1)[0, 10]:.0f} HU"


def test_metal_and_sinogram(page):
    assert not page.is_visible("#outline")
    choose(page, "Outline metal")
    assert page.is_visible("#outline")
    assert page.is_visible("#sinogram")
    assert page.is_visible("#trace")
    choose(page, "Outline the trace")
    assert not page.is_visible("#trace")
    set_slider(page, "slice", 0)
    wait_for(page, "slice 1")
    assert not page.is_visible("#sinogram")
    assert page.is_visible("#no-sinogram")


def test_tables_sort_by_numbers_and_back(page):
    table = page.locator("table.sorts").first
    heading = table.get_by_role("button", name="RMSE, body")
    column = "rows => rows.map(r => r.cells[2].textContent.trim())"
    heading.click()
    assert table.locator("tbody tr").evaluate_all(column) == ["9.5", "46.0", "120.0"]
    heading.click()
    assert table.locator("tbody tr").evaluate_all(column) == ["120.0", "46.0", "9.5"]
    assert table.locator('th[aria-sort="descending"]').count() == 1


def test_every_control_has_a_name(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, button, canvas, svg')].filter((e) => !(
        e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).map((e) => e.outerHTML)"""
    )
    assert nameless == []


def test_a_phone_shows_it_without_scrolling_sideways(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_paper_shows_tables_and_no_controls(page):
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.is_visible("#cut")
    assert page.locator("details[open]").count() == page.locator("details").count()
