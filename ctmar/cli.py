"""The command line: flags, exit codes and messages; everything else is imported when a command needs it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctmar import __version__
from ctmar.commands.correct import correct
from ctmar.commands.flags import Config, Device, Json, Overwrite, check_device, given, keep_source, names
from ctmar.errors import CtmarError, SomeSlicesFailedError, UsageError

if TYPE_CHECKING:
    from ctmar.restorer import NetworkRestorer

app = typer.Typer(
    name="ctmar",
    help="Simulate, learn and remove metal artifacts in CT. Not for diagnostic use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Stopped(BaseException):
    """A signal asked the program to end; no handler of ordinary errors is to take it for one."""


def _stop(number: int, _: object) -> None:
    raise _Stopped(number)


def main() -> None:
    """Run the command line; every error that a user can meet ends in one sentence and its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    from ctmar.console import fail

    try:
        app()
    except CtmarError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except _Stopped as stopped:
        fail("interrupted; no half-written file was left behind. simulate and train go on with --resume.")
        sys.exit(128 + int(stopped.args[0]))
    except OSError as error:
        if "CTMAR_DEBUG" in os.environ:
            raise
        while not error.strerror and isinstance(error.__cause__, OSError):
            error = error.__cause__  # pydicom raises its own, which says nothing but the name of an attribute
        what = f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}"
        room = " Make room, then repeat the command (simulate and train: with --resume)." if _is_full(error) else ""
        fail(f"{what}; no half-written file was left behind.{room}")
        sys.exit(1)
    except Exception as error:
        if "CTMAR_DEBUG" in os.environ:
            raise
        # the text of an unforeseen error could quote a header, so only its kind and place are shown
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else "?"
        fail(f"internal error ({type(error).__name__} at {where}); set CTMAR_DEBUG=1 for the traceback.")
        sys.exit(1)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def simulate(
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
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Complete a database that was interrupted.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only draw the first cases into DB/planned.png; scan nothing.")
    ] = False,
    dicom: Annotated[bool, typer.Option("--dicom", help="Write every case as DICOM series, too.")] = False,
    device: Device = "auto",
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
    with progress_bar() as bar:
        if preview:
            result = look(sources, out, settings, workers=workers, progress=bar)
        else:
            result = run(
                sources, out, settings, workers=workers, resume=resume, dicom=dicom, device=device, progress=bar
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


@app.command()
def train(
    database: Annotated[Path, typer.Argument(help="Folder made by ctmar simulate.")],
    out: Annotated[Path, typer.Option(help="Weights to write, .safetensors; the card is put beside them.")],
    arch: Annotated[str | None, typer.Option(help="Architecture [cnn].")] = None,
    channels: Annotated[int | None, typer.Option(help="2, 3 or 5 input images [3].")] = None,
    path: Annotated[str | None, typer.Option(help="raw, dicom or both [both].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the patches [60].")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches a step [16].")] = None,
    lr: Annotated[float | None, typer.Option(help="Initial learning rate.")] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    config: Config = None,
) -> None:
    """Train a network on a database; patients are split, never slices.

    Example: `ctmar train db --out my-model.safetensors --epochs 30`
    """
    from ctmar.config import TrainingSettings, load_toml, settings_from
    from ctmar.console import note, progress_bar
    from ctmar.training import train as run

    flags = given(arch=arch, channels=channels, path=path, epochs=epochs, batch_size=batch_size, lr=lr)
    settings = settings_from(TrainingSettings, load_toml(config) if config else {}, overrides=flags, origin="training")
    with progress_bar() as bar:
        bar("sampling patches", 0, 1)
        total = 0

        def tell(epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
            nonlocal total
            if not total:
                bar("sampling patches", 1, 1)
            total = epochs * batches
            bar("training", (epoch - 1) * batches + batch, total)

        card = run(database, out, settings, device=device, resume=resume, progress=tell)
    metrics = card.metrics
    note(f"{out}: validation {metrics['validation']:.3e} (1/cm)^2 at epoch {metrics['best_epoch']}")
    inputs = ", ".join(f"{name} {value:.3e}" for name, value in metrics["validation_of_inputs"].items())
    note(f"the inputs have: {inputs}")


app.command()(correct)


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(help="Folder of case files with reference images.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.csv, metrics.json and report.html.")],
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a .safetensors file.")] = "default",
    device: Device = "auto",
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Score every method on every case, on the raw-data and on the DICOM path.

    Example: `ctmar evaluate db --out results`
    """
    from ctmar.console import note, print_json, print_metrics, progress_bar, warn
    from ctmar.evaluation import evaluate as run
    from ctmar.evaluation import trained_on, without_nan, write_results
    from ctmar.files import building, refuse_existing
    from ctmar.metrics import summarise
    from ctmar.report import render_report
    from ctmar.restorer import NetworkRestorer

    check_device(device)
    keep_source(source, out)
    refuse_existing(out, overwrite=overwrite)
    restorer = NetworkRestorer(model, device=device)
    with building(out, overwrite=overwrite) as folder:
        with progress_bar() as bar:
            rows, skipped = run(
                source, restorer=restorer, device=device, progress=lambda done, n: bar("evaluating", done, n)
            )
        warnings = [f"{name}: {reason}" for name, reason in skipped]
        seen = trained_on(source, restorer.card)
        if seen:
            warnings.append(f"The model has seen {len(seen)} of these patients in training: its figures flatter it.")
        write_results(rows, folder)
        render_report(
            folder / "report.html",
            title="Evaluation",
            results=rows,
            slices=[],
            settings={"cases": len({row["case"] for row in rows}), "model": restorer.card.name},
            model_card=_card(restorer),
            warnings=warnings,
        )
    for text in warnings:
        warn(text)
    if json_:
        print_json(without_nan(rows))
    else:
        print_metrics(summarise(rows))
        note(f"{out}: metrics.csv, metrics.json, report.html")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
) -> None:
    """The whole way with nothing but this program: phantom, simulation, correction, evaluation.

    Example: `ctmar demo --out demo-out`
    """
    from ctmar.console import note, print_metrics, progress_bar
    from ctmar.demo import run_demo
    from ctmar.metrics import summarise

    check_device(device)
    with progress_bar() as bar:
        rows = run_demo(out, device=device, overwrite=overwrite, progress=bar)
    print_metrics(summarise(rows))
    note(f"{out}: corrected/*.dcm, metrics.json, report.html (not for diagnostic use)")


@app.command()
def info(json_: Json = False) -> None:
    """Version, devices, backends and what is missing, models and their hashes."""
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


def _card(restorer: NetworkRestorer) -> dict[str, Any]:
    """The model card without its long lists."""
    from dataclasses import asdict

    card = asdict(restorer.card)
    card["data"] = {k: len(v) if isinstance(v, list | tuple) else v for k, v in card["data"].items()}
    card["metrics"] = {k: v for k, v in card["metrics"].items() if k != "curve"}
    return card
