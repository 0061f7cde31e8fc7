"""From a source to a corrected output: what `ctmar correct` and the library do with a DICOM series or a volume."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ctmar import __version__
from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import Detection
from ctmar.dicom.derived import DerivedSeries, new_uid
from ctmar.dicom.given_masks import given_metal
from ctmar.dicom.identifiers import identifiers
from ctmar.dicom.output import SeriesOutput, SeriesStack
from ctmar.dicom.pixels import Slice
from ctmar.dicom.series import Series
from ctmar.files import CORRECTION, building, keep_files
from ctmar.methods import Restorer
from ctmar.pipeline import Sink, Tell, correct_stack, find_metal
from ctmar.report.correction import Previews, write_html, write_json
from ctmar.results import SeriesResult, SliceResult

_IN_REPORT = 200
_EXPLAINED = 20
_IN_PREVIEW = 40


def correct_series(
    series: Series,
    out: Path,
    settings: CorrectionSettings,
    *,
    restorer: Restorer | None = None,
    tell: Tell | None = None,
    sinks: Sequence[Sink[Slice]] = (),
) -> SeriesResult:
    """Write the corrected series, with report.json, to the folder `out`; the source is only read.

    Slices without metal are carried through with identical pixels. A slice that cannot be read is left out, one
    whose correction fails its checks is carried through; both are listed in the result.

    Parameters
    ----------
    series
        See `ctmar.dicom.series.find_series`.
    out
        Folder to make; it appears when it is complete.
    settings
        What to do.
    restorer
        The network, for the methods that need one.
    tell
        Told about every slice.
    sinks
        Who else is handed every slice, see `ctmar.pipeline.Sink`.

    Raises
    ------
    OutputExistsError
        Where `out` exists and is not to be overwritten.
    UnsupportedInputError
        Where no slice can be read; or one cannot, or fails its checks, with `settings.strict`.
    UsageError
        Where the mask does not fit the series, or `out` would take the place of its files.
    """
    keep_files((one.file.path for one in series.slices), out)
    began = time.monotonic()
    card = getattr(restorer, "card", None)
    stack = SeriesStack(series)
    with building(out, kind=CORRECTION, overwrite=settings.overwrite) as folder:
        metal, unreadable = metal_of(stack, series, settings, tell=tell)
        with_metal = [index for index in metal.slices if index not in unreadable]
        derived = DerivedSeries(
            uid=new_uid(),
            description=f"{series.description} {settings.method.upper() if with_metal else 'no metal'} (ctmar)".strip(),
            method=settings.method,
            version=__version__,
            created=datetime.now(UTC),
            model_name=card.name if card else None,
            model_hash=card.sha256 if card else None,
            details=settings.in_words(),
        )
        output = SeriesOutput(folder, series, derived, settings, metal, previewed=_spread(with_metal, _IN_PREVIEW))
        previews = _previews(with_metal, len(stack), report=settings.report)
        results = correct_stack(
            stack,
            metal.masks,
            (output, previews, *sinks),
            settings,
            unreadable=unreadable,
            restorer=restorer,
            tell=tell,
        )
        output.close()
        result = result_of(
            output.named(results),
            metal,
            settings,
            out=out,
            began=began,
            restorer=restorer,
            warnings=(*series.warnings, *what_to_say(metal), *output.warnings),
            source_uid=series.uid,
            derived_uid=derived.uid,
        )
        write_json(folder / "report.json", result, settings)
        if settings.report:
            patient = identifiers(series) if settings.include_identifiers else {}
            write_html(
                folder / "report.html", result, settings, previews, asdict(card) if card else None, patient=patient
            )
    return result


def metal_of(
    stack: SeriesStack, series: Series, settings: CorrectionSettings, *, tell: Tell | None = None
) -> tuple[Detection, dict[int, str]]:
    """The metal of every slice, from the user's mask or by detection; and slices known to be unreadable.

    Raises
    ------
    UsageError
        Where the mask does not fit the series.
    UnsupportedInputError
        Where the mask, or all of the series, cannot be read.
    """
    if settings.mask is not None:
        return given_metal(settings.mask, series), {}
    return find_metal(stack, settings, tell=tell)


def result_of(
    slices: Iterable[SliceResult],
    metal: Detection,
    settings: CorrectionSettings,
    *,
    out: Path,
    began: float,
    restorer: Restorer | None,
    warnings: Iterable[str],
    source_uid: str = "",
    derived_uid: str = "",
) -> SeriesResult:
    """What became of a series or volume that was begun at `time.monotonic()` `began`."""
    card = getattr(restorer, "card", None)
    return SeriesResult(
        source_uid=source_uid,
        derived_uid=derived_uid,
        method=settings.method,
        model=card.name if card else None,
        model_sha256=card.sha256 if card else None,
        version=__version__,
        folder=str(out),
        slices=tuple(slices),
        warnings=tuple(warnings),
        metal=metal.report(),
        seconds=time.monotonic() - began,
    )


def what_to_say(metal: Detection) -> list[str]:
    """Warnings about the metal: what the detection says, what it left out, and that there is none."""
    warnings = list(metal.warnings)
    if metal.left_out:
        reasons = Counter(component.reason for component in metal.left_out)
        what = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        warnings.append(f"Bright regions left out as no metal ({what}); report.json lists them, --keep-all keeps them.")
    if not metal.slices:
        warnings.append("No metal was found: all slices are carried through unchanged.")
    return warnings


def _previews(with_metal: Sequence[int], count: int, *, report: bool) -> Previews:
    """Pictures for the report: slices with metal first, then others, so that one can page through the series."""
    if not report:
        return Previews(())
    shown = _spread(with_metal, _IN_REPORT)
    others = [index for index in range(count) if index not in shown]
    return Previews(shown | _spread(others, _IN_REPORT - len(shown)), _spread(with_metal, _EXPLAINED))


def _spread(indices: Sequence[int], most: int) -> frozenset[int]:
    """At most so many of the indices, evenly spread."""
    if len(indices) <= most:
        return frozenset(indices)
    return frozenset(indices[k] for k in np.linspace(0, len(indices) - 1, most).round().astype(int))
