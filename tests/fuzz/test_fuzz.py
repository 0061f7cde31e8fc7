"""A short run of the fuzzer; `python -m tests.fuzz` runs a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import target
from tests.fuzz.campaign import campaign
from tests.fuzz.inputs import draw
from tests.fuzz.seeds import Seed, make_seeds

INPUTS = 300


@pytest.fixture(scope="module")
def seeds() -> dict[str, Seed]:
    pytest.importorskip("highdicom")
    pytest.importorskip("nibabel")
    return make_seeds()


def test_the_seeds_are_corrected(seeds: dict[str, Seed], tmp_path: Path) -> None:
    """What is mutated is worth mutating: every seed gets as far as its output."""
    with target.small_scans():
        for number, (name, seed) in enumerate(seeds.items()):
            outcome = target.run(seed, tmp_path / str(number))
            assert outcome.kind == "success", f"{name}: {outcome.detail}"
            assert "corrected" in outcome.detail, name
            assert "0 of" not in outcome.detail, name
    assert list(tmp_path.iterdir()) == []


def test_an_input_can_be_made_again_from_its_number(seeds: dict[str, Seed]) -> None:
    first = [draw(seeds, 1, number) for number in range(20)]
    assert [draw(seeds, 1, number) for number in range(20)] == first
    assert [draw(seeds, 2, number) for number in range(20)] != first
    assert sum(seed.files != seeds[name].files for name, seed in first) >= 18


def test_the_checks_can_fail(seeds: dict[str, Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, act: str) -> None:
            self.act = act

        def main(self, arguments: list[str], **_: object) -> None:
            source = Path(arguments[1])
            match self.act:
                case "write into the source":
                    (source / "new").write_text("x")
                case "write beside the source":
                    (source.parent / "beside").write_text("x")
                case "write into the temporary folder":
                    (source.parent / "tmp" / "x").write_text("x")
                case "change a source":
                    (source / "0001.dcm").write_bytes(b"")
                case "tell the patient":
                    print("SECRET")
                case "raise":
                    raise KeyError("x")
                case "nothing":
                    pass

    acts = ["write into the source", "write beside the source", "write into the temporary folder", "change a source"]
    for act in [*acts, "tell the patient", "raise", "nothing"]:
        monkeypatch.setattr(target, "_COMMAND", Broken(act))
        assert target.run(seeds["explicit"], tmp_path / act).failed, act


@pytest.mark.slow
def test_damaged_and_hostile_input_ends_in_a_sentence_or_in_a_corrected_series(seeds: dict[str, Seed]) -> None:
    summary = campaign(INPUTS, 1)
    assert summary.inputs == INPUTS
    assert not summary.failures, summary.table() + "".join(f"\n{kind}\n{text}" for *_, kind, text in summary.failures)
    assert len(summary.outcomes) > 3
