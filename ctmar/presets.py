"""Settings by region of the body: what `--preset` sets unless something else is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """What a region asks for.

    Attributes
    ----------
    settings
        Values of `ctmar.correction_settings.CorrectionSettings` by name that differ from its defaults; those of
        ``metal`` by name in their turn.
    reason
        What was measured (docs/blending.md).
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


PRESETS: Mapping[str, Preset] = {
    "auto": Preset(reason="the best of what was tried, for hips, spines, teeth and heads"),
    "hip": Preset(reason="as auto: no other setting was better"),
    "spine": Preset(reason="as auto: no other setting was better"),
    "dental": Preset(reason="as auto: no other setting was better"),
    "head": Preset(reason="as auto: no other setting was better"),
}
"""By name, in the order in which they are offered. All are alike today: what was measured gave no region a reason to
differ. The names are there for whoever measures one."""


def with_preset(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Settings with those of a preset where they say nothing themselves.

    Raises
    ------
    KeyError
        For an unknown name.
    """
    preset = PRESETS[name].settings
    metal = {**preset.get("metal", {}), **values.get("metal", {})}
    return {**preset, **values, "metal": metal}
