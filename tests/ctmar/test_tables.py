import pytest

from ctmar.report.tables import table_of_cases, table_of_lesions, table_of_means, table_of_models, write_tables
from ctmar.statistics import group_means


def row(case, method, rmse, ssim, path="raw"):
    return {"case": case, "path": path, "method": method, "rmse_hu": rmse, "ssim": ssim, "patient": case}


ROWS = [
    row("case-1", "limit", 6.04, 0.99),
    row("case-1", "cnn-mar", 29.14, 0.943),
    row("case-1", "uncorrected", 155.0, 0.5652),
    row("case-1", "theirs", 30.0, 0.9),
    row("case-2", "uncorrected", 71.5, float("nan")),
    row("case-1", "uncorrected", 99.0, 0.1, path="dicom"),
]


def test_cases_by_methods_in_the_papers_order():
    assert table_of_cases(ROWS, "rmse_hu", path="raw") == (
        "| case | Uncorrected | CNN-MAR | theirs | limit |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| case-1 | 155.0 | 29.1 | 30.0 | 6.0 |\n"
        "| case-2 | 71.5 | – | – | – |\n"
    )
    chosen = table_of_cases(ROWS, "ssim", path="raw", cases={"case-2": "shoulder", "case-1": "hips"}, digits=3)
    assert chosen.splitlines()[2:] == ["| shoulder | – | – | – | – |", "| hips | 0.565 | 0.943 | 0.900 | 0.990 |"]
    assert table_of_cases(ROWS, "rmse_hu", path="dicom").splitlines()[2:] == ["| case-1 | 99.0 |"]
    with pytest.raises(ValueError, match="no such case"):
        table_of_cases(ROWS, "rmse_hu", path="raw", cases={"none": "none"})


def test_models_side_by_side():
    results = {
        "2 channels": [row("a", "cnn", 40.0, 0.931), row("a", "cnn-mar", 31.0, 0.938), row("a", "li", 46.2, 0.93)],
        "3 channels": [row("a", "cnn", 33.1, 0.94), row("a", "cnn-mar", 29.1, 0.943)],
    }
    assert table_of_models(results, path="raw", cases={"a": "hips"}) == (
        "| case | 2 channels | 3 channels |\n"
        "| --- | ---: | ---: |\n"
        "| hips | 40.0 / 0.931 → 31.0 / 0.938 | 33.1 / 0.940 → 29.1 / 0.943 |\n"
    )
    with pytest.raises(ValueError, match="network"):
        table_of_models(results, path="dicom")


def test_means_with_their_intervals():
    rows = [row(f"c{k}", "li", float(10 * k), 0.9) | {"metal_mm2": 50.0} for k in range(1, 10)]
    table = table_of_means(group_means(rows, by="size"), path="raw", metric="rmse_hu")
    assert table.splitlines()[0] == "| group | cases | patients | LI |"
    assert table.splitlines()[2].startswith("| small | 9 | 9 | 50.0 (")
    alone = group_means(rows[:1], by="all")
    assert table_of_means(alone, path="raw", metric="rmse_hu").splitlines()[2] == "| all | 1 | 1 | 10.0 |"
    with pytest.raises(ValueError, match="no mean"):
        table_of_means(alone, path="dicom", metric="rmse_hu")


def test_lesions():
    def seen(path, method, auc):
        return {"path": path, "method": method, "auc": auc, "low": auc - 0.05, "high": auc + 0.05, "n": 40,
                "patients": 9, "contrast_hu": 30.0, "radius_mm": 4.0}  # fmt: skip

    rows = [seen("raw", "limit", 0.94), seen("raw", "li", 0.6), seen("dicom", "li", 0.55)]
    assert table_of_lesions(rows) == (
        "| method | From raw data | From images alone |\n"
        "| --- | ---: | ---: |\n"
        "| LI | 0.600 (0.550 to 0.650) | 0.550 (0.500 to 0.600) |\n"
        "| limit | 0.940 (0.890 to 0.990) | – |\n"
    )


def test_all_tables_in_one_file(tmp_path):
    known = {"rmse_body_hu": 20.0, "metal_mm2": 50.0, "material": "ti", "implant": "hip"}
    rows = [
        row(case, method, rmse, 0.9, path=path) | known
        for path in ("raw", "dicom")
        for case in ("a", "b")
        for method, rmse in (("li", 50.0), ("cnn", 40.0), ("cnn-mar", 30.0), ("cnn@two", 44.0), ("cnn-mar@two", 33.0))
    ]
    write_tables(rows, tmp_path / "tables.md", channels={"one": 3, "two": 2})
    text = (tmp_path / "tables.md").read_text()
    assert text.count("## From ") == 2
    assert "| a | 50.0 | 40.0 | 30.0 | 44.0 | 33.0 |" in text
    assert "| case | one (3 channels) | two (2 channels) |" in text
    assert "| a | 40.0 / 0.900 → 30.0 / 0.900 | 44.0 / 0.900 → 33.0 / 0.900 |" in text
    write_tables(rows, tmp_path / "tables.md", channels={"one": 3})
    assert "Table 3" not in (tmp_path / "tables.md").read_text()
