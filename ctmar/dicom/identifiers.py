"""Who and what a series is of, for reports that are asked to say so."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ctmar.dicom.series import Series
from ctmar.dicom.source import PARSE_ERRORS, optional_text, read_dataset
from ctmar.errors import UnsupportedInputError

_KEYWORDS: Mapping[str, str] = MappingProxyType(
    {
        "patient": "PatientName",
        "patient ID": "PatientID",
        "born": "PatientBirthDate",
        "sex": "PatientSex",
        "accession number": "AccessionNumber",
        "study date": "StudyDate",
        "study": "StudyDescription",
        "series": "SeriesDescription",
        "series number": "SeriesNumber",
    }
)
_LONGEST = 200


def identifiers(series: Series) -> dict[str, str]:
    """Patient and study as the first readable image of a series names them; empty where there is nothing to read.

    Dates and names are as DICOM writes them (``YYYYMMDD``, ``Family^Given``); a text is cut after 200 characters.
    """
    tags = list(_KEYWORDS.values())
    for one in series.slices:
        try:
            with one.file.open() as stream:
                dataset = read_dataset(stream, tags=[*tags, "SpecificCharacterSet"])
        except (*PARSE_ERRORS, UnsupportedInputError):
            continue
        found = {name: optional_text(dataset, keyword)[:_LONGEST] for name, keyword in _KEYWORDS.items()}
        return {name: text for name, text in found.items() if text}
    return {}
