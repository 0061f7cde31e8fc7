"""Pictures pixel by pixel, and the page as a parser sees it: self-contained, escaped, complete."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ctmar.report import SlicePreview, Window, before_after_sheet, picture_png, render_report
from ctmar.report.encoding import encode, levels
from ctmar.report.pictures import BONE, SOFT_TISSUE, difference, outline_png, picture_webp, windowed
from ctmar.results import SliceResult


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_windowing_is_dicoms_linear_exact():
    hu = np.array([[-160.0, 40.0, 240.0, -1000.0, 3000.0, np.nan, 140.0]])
    assert windowed(hu, SOFT_TISSUE).tolist() == [[0, 128, 255, 0, 255, 0, 191]]
    assert windowed(np.array([[-500.0, 1300.0, 400.0]]), BONE).tolist() == [[0, 255, 128]]
    with pytest.raises(ValueError, match="positive"):
        Window("x", "X", 0, 0)


def test_png_keeps_every_grey_value():
    hu = np.linspace(-200, 300, 600).reshape(20, 30)
    np.testing.assert_array_equal(decoded(picture_png(hu, SOFT_TISSUE)), windowed(hu, SOFT_TISSUE))


def test_webp_is_close_and_never_larger_than_asked():
    grey = np.add.outer(np.arange(600), np.arange(300)).astype(float) * 255 / 898
    picture = Image.open(io.BytesIO(picture_webp(grey.astype(np.uint8)))).convert("L")
    assert picture.size == (256, 512)
    expected = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize((256, 512)), float)
    assert np.abs(np.asarray(picture, float) - expected).mean() < 2


def test_difference_is_after_minus_before():
    assert difference([[0.0, 0.0, 500.0]], [[0.0, 100.0, 0.0]]).tolist() == [[128, 191, 0]]


def test_outline_runs_just_outside_the_metal():
    metal = np.zeros((7, 7), bool)
    metal[3, 3] = True
    picture = np.asarray(Image.open(io.BytesIO(outline_png(metal))).convert("RGBA"))
    rows, cols = np.nonzero(picture[..., 3])
    assert sorted(zip(rows.tolist(), cols.tolist(), strict=True)) == [(2, 3), (3, 2), (3, 4), (4, 3)]
    assert picture[2, 3].tolist() == [255, 138, 31, 255]


def preview(label="Slice 1", *, reference=False, metal=False, size=48, notes=""):
    before = np.full((size, size), 40.0)
    before[10:20, 10:20] = 1000.0
    mask = np.zeros((size, size), bool)
    mask[12:14, 12:14] = metal
    return SlicePreview(label, before, before - 100, before if reference else None, mask, notes)


def test_preview_refuses_images_of_different_shape():
    with pytest.raises(ValueError, match="differ in shape"):
        SlicePreview("x", np.zeros((4, 4)), np.zeros((4, 5)))


def test_sheet_has_three_columns_and_a_row_a_slice(tmp_path):
    path = tmp_path / "sheet.png"
    before_after_sheet([preview(size=64), preview("Slice 2", size=100)], path, SOFT_TISSUE)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (26 + 64 + 6 + 100, 3 * 100 + 2 * 6)
    # lower right corner of the second slice: 40 HU, -60 HU and a change of -100 HU
    assert [sheet[-1, 99], sheet[-1, 205], sheet[-1, 311]] == [128, 64, 64]
    with pytest.raises(ValueError, match="at least one"):
        before_after_sheet([], path, SOFT_TISSUE)


class Page(HTMLParser):
    """Text, attributes that could load something, and the slices' data."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.slices, self.inside = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs.items() if name in ("src", "href", "data", "action")]
        if tag not in ("meta", "input", "img", "link", "br"):
            self.inside.append((tag, attrs.get("class")))

    def handle_endtag(self, tag):
        assert self.inside.pop()[0] == tag

    def handle_data(self, data):
        if self.inside and self.inside[-1] == ("script", "slice-data"):
            self.slices.append(json.loads(data))
        elif self.inside and self.inside[-1][0] in ("td", "th"):
            self.cells.append(data.strip())


ROWS = [
    {
        "case": f"case-{case:06d}",
        "path": path,
        "method": method,
        "rmse_hu": rmse,
        "rmse_body_hu": rmse / 2,
        "ssim": 0.5,
    }
    for case, shift in ((1, -2.0), (2, 2.0))
    for path, method, rmse in (
        ("raw", "li", 46.0 + shift),
        ("raw", "cnn-mar", 30.0 + shift),
        ("dicom", "li", 90.0 + shift),
    )
]


def write(tmp_path, *, results=None, slices=(), settings=None, model_card=None, warnings=(), title="A report"):
    path = tmp_path / "report.html"
    render_report(
        path,
        title=title,
        results=results,
        slices=slices,
        settings=settings or {},
        model_card=model_card,
        warnings=warnings,
    )
    assert [child.name for child in tmp_path.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.inside
    return text, page


def test_report_shows_means_cases_settings_and_the_model(tmp_path):
    text, page = write(
        tmp_path,
        results=ROWS,
        settings={"metal": {"threshold_hu": 2500}, "mask": None},
        model_card={"name": "cnn-mar-3", "channels": ["uncorrected", "bhc", "li"]},
        warnings=["Two slices failed."],
    )
    assert page.tags.count("table") == 2 * 2 + 2
    joined = "|".join(cell for cell in page.cells if cell)
    # means of the two cases, in order of the paths
    assert "LI|46.0|23.0|0.500|2" in joined
    assert "CNN-MAR|30.0|15.0|0.500|2" in joined
    assert "LI|90.0|45.0|0.500|2" in joined
    assert "case-000002|LI|48.0|24.0|0.500" in joined
    assert "metal.threshold_hu|2500|mask|–" in joined
    assert "channels|uncorrected, bhc, li" in joined
    assert text.index("Two slices failed.") < text.index("Not for diagnostic use") < text.index("<table")
    assert "Streaks" not in joined


def test_report_shows_clinical_columns_when_every_row_has_them(tmp_path):
    rows = [{**row, "streak_hu": 12.34, "bone_dice": float("nan")} for row in ROWS]
    joined = "|".join(cell for cell in write(tmp_path, results=rows)[1].cells if cell)
    assert "LI|46.0|23.0|0.500|12.3|–|2" in joined


def levels_of(url):
    kind, data = url.split(",")
    assert kind == "data:image/webp;base64"
    colours = decoded(base64.b64decode(data)).astype(int)
    return colours[..., 0] + 256 * colours[..., 1]


def test_report_embeds_the_hu_of_each_slice(tmp_path):
    slices = (preview(f"Slice {k}", reference=k == 2, metal=k == 1, notes="n") for k in range(3))
    text, page = write(tmp_path, slices=slices)
    assert [entry["label"] for entry in page.slices] == ["Slice 0", "Slice 1", "Slice 2"]
    names = [set(entry["pictures"]) for entry in page.slices]
    always = {"before", "after"}
    assert names == [always, always | {"outline"}, always | {"reference"}]
    pictures = page.slices[0]["pictures"]
    before, change = levels_of(pictures["before"]), levels_of(pictures["after"]) - 1024
    assert before[40, 40] * 4 - 1024 == 40
    assert before[15, 15] * 4 - 1024 == 1000
    assert np.unique(change * 4).tolist() == [-100]
    # opens at the slice with metal
    assert re.search(r'id="slice" min="0" max="2" step="1"\s+value="1"', text)


def test_levels_keep_hu_to_two_and_average_larger_images():
    hu = np.random.default_rng(0).uniform(-1023, 3060, (20, 30))
    np.testing.assert_allclose(levels(hu) * 4.0 - 1024, hu, atol=2)
    assert levels(np.array([[np.nan, -3000.0, 5000.0]])).tolist() == [[0, 0, 1023]]
    large = np.kron(hu, np.ones((2, 2)))
    np.testing.assert_array_equal(levels(large, 2), levels(hu))


def test_a_slice_that_did_not_change_holds_one_picture():
    image = np.zeros((8, 8))
    assert encode(SlicePreview("a", image, image))["pictures"]["after"] is None


def test_slices_are_plotted_and_listed(tmp_path):
    results = [
        SliceResult(1, "no metal", along_normal_mm=2.5),
        SliceResult(2, "corrected", metal_mm2=50.0, measures={"mean_change_hu": 8.0, "largest_change_hu": 500.0}),
        SliceResult(3, "failed", metal_mm2=25.0, message="it went wrong", warnings=("odd",)),
    ]
    path = tmp_path / "report.html"
    render_report(
        path,
        title="x",
        results=None,
        slices=[preview("slice 2")],
        settings={},
        model_card=None,
        warnings=[],
        by_slice=results,
        metal={"pieces": 1},
    )
    text = path.read_text()
    joined = "|".join(cell for cell in Page(text).cells if cell)
    assert "1|–|2.5|–|–|–|no metal" in joined
    assert "2|–|–|50|8.0|500|corrected" in joined
    assert "3|–|–|25|–|–|failed; it went wrong; odd" in joined
    assert "pieces|1" in joined
    assert text.count('class="area"') == 2
    assert text.count('class="failed"') == 1
    # only the second slice has pictures, the first of the page
    assert re.findall(r'data-slice="(\d+)"', text) == ["0"]


def test_report_without_slices_or_results_has_no_empty_sections(tmp_path):
    text, page = write(tmp_path)
    assert "table" not in page.tags
    assert "img" not in page.tags
    assert 'role="alert"' not in text
    assert "Not for diagnostic use" in text


def test_report_is_escaped_and_loads_nothing(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x>"
    text, page = write(
        tmp_path,
        title=evil,
        results=[{**ROWS[0], "case": evil}],
        slices=[preview(evil, notes=evil)],
        settings={evil: evil},
        model_card={evil: evil},
        warnings=[evil],
    )
    assert "alert(1)</script>" not in text
    assert page.links == []
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)
    assert page.slices[0]["label"] == evil
    assert page.tags.count("script") == 4
    assert "default-src 'none'" in text


@pytest.mark.parametrize("missing", ["case", "method", "ssim"])
def test_report_refuses_incomplete_rows(tmp_path, missing):
    row = {name: value for name, value in ROWS[0].items() if name != missing}
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        render_report(
            tmp_path / "report.html",
            title="x",
            results=[row],
            slices=[],
            settings={},
            model_card=None,
            warnings=[],
        )
    assert list(tmp_path.iterdir()) == []
