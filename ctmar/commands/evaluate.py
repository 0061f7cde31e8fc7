"""`ctmar evaluate`."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctmar.commands.flags import Device, Json, Overwrite, Quiet, Verbose, check_device
from ctmar.commands.flags import models as model_names
from ctmar.errors import UsageError
from ctmar.files import keep_source

if TYPE_CHECKING:
    from ctmar.console import Bar
    from ctmar.restorer import NetworkRestorer


def evaluate(
    source: Annotated[Path, typer.Argument(help="Folder of case files with reference images.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables, the worst cases and report.html.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a shipped model, or a .safetensors file [default]. Repeatable: more to compare.",
            autocompletion=model_names,
        ),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Score every model without its tissue processing, too, or with it.")
    ] = False,
    lesions: Annotated[
        bool,
        typer.Option(
            "--lesions", help="Also say how well faint lesions beside the metal are seen; takes 3 times as long."
        ),
    ] = False,
    device: Device = "auto",
    json_: Json = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Score every method on every case, on the raw-data and on the DICOM path.

    What belongs to a further model is called METHOD@MODEL.

    Example: `ctmar evaluate db --out results`
    """
    from ctmar.console import note, print_json, print_metrics, progress_bar, warn
    from ctmar.evaluation import evaluate as run
    from ctmar.evaluation import trained_on, variants_of, without_nan, write_results
    from ctmar.files import EVALUATION, building, refuse_existing, write_csv
    from ctmar.metrics import summarise
    from ctmar.report import render_report
    from ctmar.report.gallery import failure_gallery
    from ctmar.report.tables import write_tables
    from ctmar.restorer import DEFAULT_MODEL, NetworkRestorer
    from ctmar.statistics import write_statistics

    check_device(device)
    keep_source(source, out)
    refuse_existing(out, kind=EVALUATION, overwrite=overwrite)
    models = {}
    for name in model or [DEFAULT_MODEL]:
        one = NetworkRestorer(name, device=device)
        if one.card.name in models:
            raise UsageError(
                f"--model: two of them are called {one.card.name}, so their results could not be told apart."
            )
        models[one.card.name] = one
    restorer = next(iter(models.values()))
    variants = variants_of(models, ablation=ablation)
    with building(out, kind=EVALUATION, overwrite=overwrite) as folder:
        with progress_bar() as bar:
            rows, skipped = run(
                source,
                restorer=restorer,
                variants=variants,
                device=device,
                progress=lambda done, n: bar("evaluating", done, n),
            )
            lesion_rows, reasons = _lesions(source, restorer, device, bar) if lesions else ([], [])
        warnings = [f"{name}: {reason}" for name, reason in skipped]
        for one in models.values():
            seen = len(trained_on(source, one.card))
            if seen:
                warnings.append(
                    f"{one.card.name} has seen {seen} of these patients in training: its figures flatter it."
                )
        warnings += [reason for reason in reasons if reason not in warnings]
        write_results(rows, folder)
        write_statistics(rows, folder)
        channels = {n: len(m.card.channels) for n, m in models.items()}
        write_tables(rows, folder / "tables.md", channels=channels, lesions=lesion_rows)
        if lesion_rows:
            write_csv(lesion_rows, folder / "lesions.csv")
        worst = failure_gallery(source, rows, folder / "worst.png", restorer=restorer, device=device)
        render_report(
            folder / "report.html",
            title="Evaluation",
            results=rows,
            slices=[one.preview() for one in worst],
            settings={"cases": len({row["case"] for row in rows}), "model": ", ".join(models)},
            model_card=_card(restorer),
            warnings=warnings,
        )
    for text in warnings:
        warn(text)
    if json_:
        print_json(without_nan(rows))
    else:
        print_metrics(summarise(rows))
        files = ["metrics.csv", "metrics.json", "statistics.csv", *(["lesions.csv"] if lesion_rows else [])]
        note(f"{out}: {', '.join(files)}, tables.md, worst.png, report.html")


def _lesions(source: Path, restorer: NetworkRestorer, device: str, bar: Bar) -> tuple[list[dict[str, Any]], list[str]]:
    """What `ctmar.detectability.detectability` finds with the first model, and why cases are not in it."""
    from ctmar.detectability import Lesions, detectability
    from ctmar.errors import NoUsableSeriesError
    from ctmar.method_names import known_methods

    try:
        rows, skipped = detectability(
            source,
            Lesions(),
            methods=known_methods(),
            restorer=restorer,
            device=device,
            progress=lambda done, n: bar("lesions", done, n),
        )
    except NoUsableSeriesError as error:
        return [], [str(error)]
    reasons = [f"{name}: {reason}" for name, reason in skipped]
    if isnan(rows[0]["auc"]):
        few = f"{rows[0]['n']} lesions in {rows[0]['patients']} patients"
        reasons.append(f"{few} are too few to say how well they are seen: at least some dozens are needed.")
    return rows, reasons


def _card(restorer: NetworkRestorer) -> dict[str, Any]:
    """The model card without its long lists."""
    from dataclasses import asdict

    card = asdict(restorer.card)
    card["data"] = {k: len(v) if isinstance(v, list | tuple) else v for k, v in card["data"].items()}
    card["metrics"] = {k: v for k, v in card["metrics"].items() if k != "curve"}
    return card
