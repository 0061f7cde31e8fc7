"""`ctmar simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctmar import __version__
from ctmar.commands.flags import (
    Device,
    Quiet,
    Scheduler,
    Verbose,
    Workers,
    check_device,
    cluster_of,
    given,
    names,
)
from ctmar.errors import SomeSlicesFailedError, UsageError
from ctmar.files import keep_source


def simulate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the database.")],
    source: Annotated[
        list[str] | None, typer.Argument(help="DICOM folder, file or zip, NIfTI, or the word: phantom.")
    ] = None,
    cases: Annotated[int | None, typer.Option(help="How many cases [100].")] = None,
    seed: Annotated[int | None, typer.Option(help="What everything is drawn from [0].")] = None,
    implants: Annotated[str | None, typer.Option(help="Families by name, see docs/simulator.md [all].")] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(help="Mask of your own metal, FILE or FILE:PIXEL_MM: the family own. Repeatable."),
    ] = None,
    materials: Annotated[
        str | None, typer.Option(help="ti,fe,cu,au,cocrmo,ss316l,amalgam,goldalloy,ceramic [ti,fe,cu,au].")
    ] = None,
    kvp: Annotated[int | None, typer.Option(help="80, 100, 120 or 140 [120].")] = None,
    photons: Annotated[float | None, typer.Option(help="Photons per ray in air [2e7].")] = None,
    mas: Annotated[float | None, typer.Option(help="Tube current times time of a turn, instead of photons.")] = None,
    geometry: Annotated[str | None, typer.Option(help="arc, flat or parallel [arc].")] = None,
    views: Annotated[int | None, typer.Option(help="Views per scan [984; 720 for parallel].")] = None,
    bins: Annotated[
        int | None, typer.Option(help="Detector bins; fewer see a smaller field of view [920; 736 for parallel].")
    ] = None,
    fov: Annotated[float | None, typer.Option(help="Field of view in mm, instead of bins [528 for arc].")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings, or the simulation.toml of a database; flags win.")
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    resume: Annotated[bool, typer.Option("--resume", help="Complete a database that was interrupted.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only draw the first cases into DB/planned.png; scan nothing.")
    ] = False,
    dicom: Annotated[bool, typer.Option("--dicom", help="Write every case as DICOM series, too.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Put metal into clean CT slices and scan them: a database for training and evaluation.

    Example: `ctmar simulate clean-ct/ --out db --cases 100 --seed 1`
    """
    from ctmar.config import load_toml
    from ctmar.console import note, progress_bar, warn
    from ctmar.simulation import PLANNED_SHEET
    from ctmar.simulation import preview as look
    from ctmar.simulation import simulate as run
    from ctmar.simulation_settings import read_request
    from ctmar.sources import counted

    if photons is not None and mas is not None:
        raise UsageError("--photons and --mas say the same in two ways: give one of them.")
    overrides = given(cases=cases, seed=seed, geometry=geometry, views=views, bins=bins, fov_mm=fov)
    overrides |= {k: names(v) for k, v in (("implants", implants), ("materials", materials)) if v is not None}
    overrides |= given(shapes=tuple(shapes) if shapes else None)
    values = load_toml(config) if config else {}
    if photons is not None and isinstance(values.get("scan"), dict):
        values["scan"].pop("mas", None)  # a file's mas would take the flag's place
    for flag, other in ((bins, "fov_mm"), (fov, "bins"), (geometry, "arc_deg")):
        if flag is not None:
            values.pop(other, None)  # so would what a file says of the same in another way
    sources, settings = read_request(
        values, sources=source or [], overrides=overrides, scan=given(kvp=kvp, photons=photons, mas=mas)
    )
    made_by = values.get("version", __version__)
    if made_by != __version__:
        warn(f"{config}: was made by ctmar {made_by}, this is {__version__}; cases may differ.")
    if preview and (resume or dicom):
        raise UsageError("--preview scans nothing: give it without --resume and --dicom.")
    check_device(device)
    for one in sources:
        keep_source(Path(one), out)
    with cluster_of(context, workers, scheduler) as cluster, progress_bar() as bar:
        if preview:
            result = look(sources, out, settings, cluster=cluster, progress=bar)
        else:
            result = run(
                sources, out, settings, cluster=cluster, resume=resume, dicom=dicom, device=device, progress=bar
            )
    if preview:
        note(f"{out / PLANNED_SHEET}: {len(result.cases)} cases; {len(result.skipped)} slices or files left out.")
        for line in counted([reason for _, reason in result.skipped], most=10):
            note(f"  {line}")
    else:
        note(f"{out}: {len(result.cases)} cases; {len(result.skipped)} slices or files left out, see index.csv.")
    if result.truncated:
        warn(
            f"in {result.truncated} cases the patient reaches outside the field of view of"
            f" {2 * settings.scanner().field_of_view_mm:.0f} mm: their projections are truncated. More bins see more."
        )
    for name, reason in result.failed:
        warn(f"{name}: {reason}")
    if result.failed:
        raise SomeSlicesFailedError(f"{len(result.failed)} of {settings.cases} cases could not be simulated.")
