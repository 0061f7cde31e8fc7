"""The input of a number: drawn from the seeds by a generator of its own, so that each can be made again by itself."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.fuzz.mutators import mutate_bytes, mutate_case, mutate_elements, mutate_names, mutate_zip
from tests.fuzz.seeds import Seed, packed


def draw(seeds: dict[str, Seed], seed: int, index: int) -> tuple[str, Seed]:
    """Name of the seed that it comes from, and the mutated input."""
    rng = random.Random(f"{seed}:{index}")
    names = sorted(seeds)
    rare = [name for name in names if name.startswith("odd-")]  # large, hence slow
    often = [name for name in names if name not in rare]
    name = rng.choice(rare) if rare and rng.random() < 0.03 else rng.choice(often)
    chosen = seeds[name]
    files = dict(chosen.files)
    if rng.random() < 0.15:
        files = mutate_names(rng, files)
    same = rng.randrange(2**32) if rng.random() < 0.2 else None
    touched = [f for f in files if same is not None or rng.random() < 0.5] or [rng.choice(list(files))]
    if any(f.startswith("beside/") for f in files) and rng.random() < 0.7:
        touched = [f for f in files if f.startswith("beside/")]
    for file in touched:
        # what is done alike to all files does not make the odd one out fail alone
        files[file] = _mutated(rng if same is None else random.Random(same), file, files[file])
    if not chosen.source and not chosen.flags and rng.random() < 0.12:
        archive = packed(files)
        files = {"source.zip": mutate_zip(rng, archive) if rng.random() < 0.5 else archive}
        return name, replace(chosen, files=files, source="source.zip")
    return name, replace(chosen, files=files)


def _mutated(rng: random.Random, name: str, content: bytes) -> bytes:
    if name.endswith(".zip"):
        return mutate_zip(rng, content)
    if name.endswith(".h5"):
        return mutate_case(rng, content)
    if name.endswith((".npy", ".nii", ".nii.gz", ".png")) or rng.random() < 0.3:
        return mutate_bytes(rng, content)
    return mutate_elements(rng, content)
