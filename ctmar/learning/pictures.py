"""What a network makes of a few validation patches, as a sheet of pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from ctmar.files import replacing
from ctmar.learning.patches import PATHS, Patches
from ctmar.report.pictures import SOFT_TISSUE, difference, windowed

_ENLARGED = 192
"""Pixels that a patch has at least in the sheet."""

_GAP, _HEADER, _MARGIN = 4, 20, 86


def choose_patches(patches: Patches, count: int) -> NDArray[np.intp]:
    """Numbers of the patches to draw: the groups of path and metal in turn, spread evenly over each group's errors.

    One patch of a group is its median by the last input's error, two are its quartiles; the very hardest would only
    show what no network can mend. The same patches are always chosen, so that the sheets of all epochs can be compared.
    """
    records = patches.records
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
    return np.array(list(turns)[:count], np.intp)


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
    cell = side * factor + _GAP
    titles = [*names, "output", "reference", "output - ref."]
    sheet = Image.new("RGB", (_MARGIN + len(titles) * cell, _HEADER + len(index) * cell), (20, 20, 20))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(titles):
        draw.text((_MARGIN + column * cell + 2, 2), title, fill=(225, 225, 225), font=font)
    for row, images in enumerate(per_unit):
        label = f"{PATHS[records['path'][row]]}\n{patches.metals[records['metal'][row]]}"
        draw.multiline_text((4, _HEADER + row * cell + 4), label, fill=(225, 225, 225), font=font)
        greys = [windowed(image, SOFT_TISSUE) for image in images] + [difference(images[-1], images[-2])]
        for column, grey in enumerate(greys):
            picture = Image.fromarray(grey).resize((side * factor, side * factor), Image.Resampling.NEAREST)
            sheet.paste(picture, (_MARGIN + column * cell, _HEADER + row * cell))
    with replacing(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
