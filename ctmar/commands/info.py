"""`ctmar info`."""

from __future__ import annotations

from ctmar.commands.flags import Json


def info(json_: Json = False) -> None:
    """Version, devices, backends and what is missing, models and their hashes.

    Example: `ctmar info --json`
    """
    from ctmar.console import out, print_json
    from ctmar.info import collect

    values = collect()
    if json_:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            out.print(f"{name}:", markup=False)
            for key, entry in value.items():
                out.print(f"  {key}: {entry}", markup=False, soft_wrap=True)
        else:
            out.print(f"{name}: {value}", markup=False, soft_wrap=True)
