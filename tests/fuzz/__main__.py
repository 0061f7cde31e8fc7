"""Feed `ctmar correct` with damaged and hostile input, and say what came of it.

python -m tests.fuzz [--inputs 20000] [--seed 1] [--first 0] [--odd FOLDER] [--save FOLDER]

Each input is made from the seed and its own number: `--first 1234 --inputs 1` repeats one. What fails is saved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path


def main() -> int:
    """Run as told; the exit code is 1 where an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="what all of them are drawn from")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--odd", type=Path, help="folder of real files to use as seeds as well")
    parser.add_argument("--save", type=Path, default=Path("fuzz-failures"), help="where inputs that fail are put")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.first, given.inputs, given.seed, given.odd)
        return 0
    from tests.fuzz.campaign import campaign

    summary = campaign(given.inputs, given.seed, first=given.first, odd=given.odd, save=given.save, show=True)
    print(summary.table())
    return 1 if summary.failures else 0


def work(first: int, inputs: int, seed: int, odd: Path | None) -> None:
    """Run inputs one after the other, a line of JSON for each; a crash takes only this process down."""
    from tests.fuzz import target
    from tests.fuzz.inputs import draw
    from tests.fuzz.seeds import make_seeds, odd_seeds

    report = sys.stdout
    warnings.simplefilter("ignore")
    seeds = make_seeds()
    memory = Path("/dev/shm")  # folders are made and removed there in no time
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ctmar-fuzz-", dir=place) as name, target.small_scans():
        folder = Path(name)
        for index, chosen in enumerate(seeds.values()):
            target.run(chosen, folder / f"seed-{index}")  # imports and compiles what the inputs then find at hand
        seeds |= odd_seeds(odd) if odd else {}
        target.bound_memory()
        for index in range(first, first + inputs):
            kind, chosen = draw(seeds, seed, index)
            outcome = target.run(chosen, folder / "input")
            if outcome.failed:
                shutil.rmtree(folder / "input", ignore_errors=True)
            report.write(json.dumps({"index": index, "seed": kind, **asdict(outcome)}) + "\n")
            report.flush()


if __name__ == "__main__":
    sys.exit(main())
