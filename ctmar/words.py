"""Numbers as people write them, and names as they meant them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers with their runs shortened: 3, 5-8, 12."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The question after a misspelt name, "" where no known one is like it; a lower `cutoff` sees likeness sooner."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""
