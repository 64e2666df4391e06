"""Pictures for people: panels side by side, each with its title above."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from tdpm_cli.runtime.files import replacing

MARGIN, TITLE = 8, 18  # pixels
MIN_SIDE = 64  # pixels of an image in a grid


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """One picture of all panels."""
    width = sum(panel.width + MARGIN for panel in panels.values()) + MARGIN
    height = max(panel.height for panel in panels.values()) + TITLE + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw, x = ImageDraw.Draw(sheet), MARGIN
    for title, panel in panels.items():
        draw.text((x, 4), title, fill="black")
        sheet.paste(panel, (x, TITLE))
        x += panel.width + MARGIN
    return sheet


def stacked(panels: Mapping[str, Image.Image]) -> Image.Image:
    """One picture of all panels, one below the other."""
    width = max(panel.width for panel in panels.values()) + 2 * MARGIN
    height = sum(panel.height + TITLE for panel in panels.values()) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for title, panel in panels.items():
        draw.text((MARGIN, y + 4), title, fill="black")
        sheet.paste(panel, (MARGIN, y + TITLE))
        y += panel.height + TITLE
    return sheet


def captioned(rows: Mapping[str, Image.Image]) -> Image.Image:
    """One picture of all rows, each with its text written under it, broken into lines where it is long."""
    font = ImageFont.load_default(14)
    letters = max((width := max(max(row.width for row in rows.values()), 240)) // 8, 1)
    texts = ["\n".join(textwrap.wrap(text, letters)) for text in rows]
    boxes = [ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font) for text in texts]
    heights = [row.height + int(box[3]) + TITLE for row, box in zip(rows.values(), boxes, strict=True)]
    sheet = Image.new("RGB", (width + 2 * MARGIN, sum(heights) + MARGIN), "white")
    draw, y = ImageDraw.Draw(sheet), MARGIN
    for row, text, height in zip(rows.values(), texts, heights, strict=True):
        sheet.paste(row, (MARGIN, y))
        draw.multiline_text((MARGIN + 2, y + row.height + 2), text, "black", font)
        y += height
    return sheet


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    with replacing(path) as part:
        picture.save(part, format="PNG")
    return path


def strip(raw: Tensor) -> Image.Image:
    """uint8 [n, C, H, W] in one row, enlarged to be seen."""
    n, _, height, width = raw.shape
    row = torch.nn.functional.pad(raw.expand(-1, 3, -1, -1), (0, 2, 0, 2), value=255)
    pixels = row.permute(2, 0, 3, 1).reshape(height + 2, n * (width + 2), 3)
    zoom = max(64 // height, 1)
    return Image.fromarray(pixels.numpy()).resize(
        (pixels.shape[1] * zoom, pixels.shape[0] * zoom), Image.Resampling.NEAREST
    )


def image_grid(raw: Tensor, columns: int = 8) -> Image.Image:
    """Arrange images uint8 [N, C, H, W] in rows of `columns`; images below 64 pixels are enlarged without smoothing."""
    factor = max(1, MIN_SIDE // max(raw.shape[-2:]))
    large = raw.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    sheet = make_grid(large.expand(-1, 3, -1, -1), nrow=columns, padding=2, pad_value=255)
    return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())
