"""What a network makes of a few validation patches, as a sheet of pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ctmar.case_correction import PATHS
from ctmar.files import replacing
from ctmar.learning.patches import Patches
from ctmar.report.pictures import SOFT_TISSUE, difference, tile_sheet, windowed

_ENLARGED = 192
"""Pixels that a patch has at least in the sheet."""

_CONSIDERED = 2000
"""Patches among which those to draw are chosen."""

_MARGIN = 86


def choose_patches(patches: Patches, count: int) -> NDArray[np.intp]:
    """Numbers of the patches to draw: the groups of path and metal in turn, spread evenly over each group's errors.

    One patch of a group is its median by the last input's error, two are its quartiles; the very hardest would only
    show what no network can mend. The same patches are always chosen, so that the sheets of all epochs can be compared.
    """
    considered = np.unique(np.linspace(0, len(patches) - 1, _CONSIDERED).astype(np.intp))
    records = patches.records[considered]
    error = np.array([np.square(one["inputs"][-1].astype(np.float32) - one["target"][0]).sum() for one in records])
    group = records["path"].astype(int) * len(patches.metals) + records["metal"]
    order = np.argsort(-error, kind="stable")
    groups = [order[group[order] == one] for one in np.unique(group)]
    each = [min(len(members), -(-count // len(groups))) for members in groups]
    chosen = [
        [int(members[int((k + 0.5) / most * len(members))]) for k in range(most)]
        for members, most in zip(groups, each, strict=True)
    ]
    turns = (one for turn in itertools.zip_longest(*chosen) for one in turn if one is not None)
    return considered[np.array(list(turns)[:count], np.intp)]


@torch.no_grad()
def sample_sheet(
    network: nn.Module, patches: Patches, index: NDArray[np.intp], names: Sequence[str], path: Path
) -> None:
    """Write a PNG with a row for each patch: its inputs, the network's output, the reference, and their difference.

    Images in a soft tissue window, the difference (output - reference) from -200 to 200 HU.

    Parameters
    ----------
    network
        On any device.
    patches, index
        All, and the numbers of those to draw.
    names
        Of the inputs.
    path
        Where the PNG goes.
    """
    device = next(network.parameters()).device
    records = patches.records[index]
    inputs = np.ascontiguousarray(records["inputs"]).astype(np.float32)
    output = network.eval()(torch.from_numpy(inputs).to(device)).float().cpu().numpy()
    hu = records["hu"][:, None, None, None]
    per_unit = np.concatenate([inputs, output, records["target"].astype(np.float32)], axis=1) * hu - 1000
    side = inputs.shape[-1]
    factor = max(1, -(-_ENLARGED // side))
    titles = [*names, "output", "reference", "output - ref."]
    rows = []
    for row, images in enumerate(per_unit):
        label = f"{PATHS[records['path'][row]]}\n{patches.metals[records['metal'][row]]}"
        greys = [windowed(image, SOFT_TISSUE) for image in images] + [difference(images[-1], images[-2])]
        rows.append((label, [Image.fromarray(np.kron(grey, np.ones((factor, factor), np.uint8))) for grey in greys]))
    sheet = tile_sheet(titles, rows, tile_px=side * factor, label_px=_MARGIN)
    with replacing(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
