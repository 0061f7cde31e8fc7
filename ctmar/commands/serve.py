"""`ctmar serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctmar.commands.flags import given
from ctmar.errors import UsageError


def serve(
    context: typer.Context,
    config: Annotated[Path, typer.Option(help="TOML file: who may send, what is corrected, where it goes.")],
    spool: Annotated[Path | None, typer.Option(help="Folder for what was received and not yet sent.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read the file and load the models.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again the series that were given up.")
    ] = False,
) -> None:
    """Receive DICOM series, correct those with metal, send them on.

    Example: `ctmar serve --config serve.toml`
    """
    import importlib.util
    import signal
    import sys
    import threading

    missing = [name for name in ("pynetdicom", "prometheus_client", "structlog") if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(f"a node needs {', '.join(missing)}: pip install 'ctmar[pacs]'.")
    from ctmar.commands.flags import cluster_of
    from ctmar.console import note
    from ctmar.pacs.service import load_models
    from ctmar.pacs.service import serve as run
    from ctmar.pacs.settings import read_settings

    settings = read_settings(config, given(spool=spool, port=port))
    if check:
        load_models(settings)
        to = ", ".join(f"{one.ae_title} at {one.host}:{one.port}" for one in settings.destinations)
        note(f"{config}: {len(settings.peers)} peer(s), {len(settings.rules)} rule(s), all models can be used;")
        note(f"would listen on {settings.address}:{settings.port}, send to {to}, and keep {settings.spool.absolute()}.")
        return
    stopped = threading.Event()
    with cluster_of(context, settings.workers, settings.scheduler) as cluster:
        cluster.start()
        for number in (signal.SIGINT, signal.SIGTERM):  # to be stopped is how it ends
            signal.signal(number, lambda *_: stopped.set())
        run(settings, sys.stderr, cluster=cluster, stopped=stopped, retry_failed=retry_failed)
