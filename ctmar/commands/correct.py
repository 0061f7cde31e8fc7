"""`ctmar correct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctmar.commands.flags import (
    WHO,
    Config,
    Json,
    Overwrite,
    Quiet,
    Scheduler,
    Verbose,
    Workers,
    check_device,
    cluster_of,
    given,
    methods,
    models,
    nearest,
    presets,
)
from ctmar.errors import UsageError
from ctmar.files import keep_source

_METAL = "How metal is found"
_MORE = "Further output"


def correct(
    context: typer.Context,
    source: Annotated[
        list[Path],
        typer.Argument(help="DICOM folder, file, zip or DICOMDIR; NIfTI; or a case file, or a folder of them."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the corrected series; or the .nii.gz or case file to write.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="uncorrected, bhc, li, nmar1, nmar2, tv, ebhc, cnn or cnn-mar [cnn-mar].", autocompletion=methods
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Name of a shipped model, or a .safetensors file.", autocompletion=models)
    ] = "default",
    preset: Annotated[
        str | None,
        typer.Option(
            help="auto, hip, spine, dental or head: what they set is in docs/blending.md [auto].",
            autocompletion=presets,
        ),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="Share of the correction to take, 0 to 1 [1].")] = None,
    adaptive: Annotated[
        bool | None,
        typer.Option("--adaptive/--whole", help="Take only what takes streaks away, or all of the correction."),
    ] = None,
    metal_threshold: Annotated[
        float | None, typer.Option(help="HU from which on a pixel is metal [2500].", rich_help_panel=_METAL)
    ] = None,
    metal_grow: Annotated[
        float | None,
        typer.Option(help="HU from which on its neighbours are metal [2000].", rich_help_panel=_METAL),
    ] = None,
    min_volume: Annotated[
        float | None, typer.Option(help="mm3; smaller pieces are no metal [1].", rich_help_panel=_METAL)
    ] = None,
    dilation: Annotated[
        float | None, typer.Option(help="mm by which the metal is grown [0; 0.6 for raw data].", rich_help_panel=_METAL)
    ] = None,
    keep_all: Annotated[
        bool,
        typer.Option(
            "--keep-all",
            help="Also table, bone and contrast.",
            rich_help_panel=_METAL,
        ),
    ] = False,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Your own metal, FILE or FILE:NAME: DICOM SEG or RTSTRUCT, NIfTI, .npy, or PNG for one slice.",
            rich_help_panel=_METAL,
        ),
    ] = None,
    series: Annotated[str | None, typer.Option(help="UID of the series to correct.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Correct all series.")] = False,
    seg: Annotated[bool, typer.Option("--seg", help="The metal as DICOM SEG.", rich_help_panel=_MORE)] = False,
    difference: Annotated[
        bool, typer.Option("--difference", help="What changed, as a DICOM series.", rich_help_panel=_MORE)
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Pictures as DICOM secondary captures.", rich_help_panel=_MORE)
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="An HTML report.", rich_help_panel=_MORE)] = False,
    include_identifiers: Annotated[
        bool,
        typer.Option("--include-identifiers", help="Name patient and study in the report.", rich_help_panel=_MORE),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a slice that fails, instead of leaving it out or as it was.")
    ] = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with several that were interrupted.", rich_help_panel=WHO),
    ] = False,
    config: Config = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [auto].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json_: Json = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Remove metal artifacts from a DICOM series, or from case files with raw data.

    Example: `ctmar correct series/ --out corrected --report`

    Many, by two processes: `ctmar correct series-1/ series-2/ archive.zip --out corrected --workers 2`
    """
    from ctmar.config import load_toml, settings_from
    from ctmar.console import warn
    from ctmar.correcting import correct_cases, correct_dicom, correct_many, correct_nifti, is_case_source
    from ctmar.correction_settings import CorrectionSettings
    from ctmar.dicom.dicomdir import is_dicomdir
    from ctmar.masks import split_choice
    from ctmar.method_names import known_methods, needs_network
    from ctmar.nifti import is_nifti
    from ctmar.presets import PRESETS, with_preset
    from ctmar.restorer import DEFAULT_MODEL

    method = method.lower() if method else None
    if method is not None and method not in known_methods():
        raise UsageError(
            f"there is no method {method!r}{nearest(method, known_methods())} (One of your own needs ctmar --plugin"
            " FILE before the command.)"
        )
    values = load_toml(config) if config else {}
    in_file = values.pop("preset", "auto")
    preset = preset or in_file
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UsageError(f"there is no preset {preset!r}{nearest(str(preset), PRESETS)}")
    if not isinstance(values.get("metal", {}), dict):
        raise UsageError(f"{config}: metal must be a table, [metal]")
    metal = given(threshold_hu=metal_threshold, grow_hu=metal_grow, smallest_mm3=min_volume, dilation_mm=dilation) | (
        {"exclude": False} if keep_all else {}
    )
    flags = {"seg": seg, "difference": difference, "preview": preview, "report": report, "strict": strict}
    flags |= {"include_identifiers": include_identifiers, "overwrite": overwrite}
    settings = settings_from(
        CorrectionSettings,
        with_preset({**values, "metal": {**values.get("metal", {}), **metal}}, preset),
        overrides=given(method=method, strength=strength, adaptive=adaptive, mask=mask)
        | {name: True for name, on in flags.items() if on}
        | given(preset=preset, device=device),
        origin=str(config) if config else "correct",
    )
    check_device(settings.device)
    if model != DEFAULT_MODEL and not needs_network(settings.method):
        warn(f"{settings.method} needs no network: --model is not used.")
    if resume and settings.overwrite:
        raise UsageError("--resume keeps what is there and --overwrite replaces it: give one of them.")
    for one in source:
        keep_source(one.parent if is_dicomdir(one) else one, out)
    for kept in (split_choice(settings.mask)[0] if settings.mask else None, config, Path(model)):
        if kept is not None and kept.is_file():
            keep_source(kept, out)
    with cluster_of(context, workers, scheduler) as cluster:
        if len(source) > 1:
            if series:
                raise UsageError("--series chooses from one source; of several sources, all series are corrected.")
            correct_many(source, out, settings, model, resume=resume, cluster=cluster, as_json=json_, dry_run=dry_run)
        elif is_case_source(source[0]):
            if series or all_ or seg or difference or preview or report:
                raise UsageError(
                    "--seg, --difference, --preview, --report, --series and --all are for DICOM series, not for case"
                    " files."
                )
            correct_cases(
                source[0], out, settings, model, resume=resume, cluster=cluster, as_json=json_, dry_run=dry_run
            )
        elif is_nifti(source[0]):
            if series or all_:
                raise UsageError("--series and --all are for DICOM series, not for NIfTI volumes.")
            correct_nifti(source[0], out, settings, model, as_json=json_, dry_run=dry_run)
        else:
            correct_dicom(
                source[0],
                out,
                settings,
                model,
                uid=series,
                all_=all_,
                resume=resume,
                cluster=cluster,
                as_json=json_,
                dry_run=dry_run,
            )
