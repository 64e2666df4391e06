"""Arrange images into one image: grids, panels with titles, rows with captions, contact sheets."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from tdpm_cli.runtime.destinations import MARK
from tdpm_cli.runtime.files import replacing

GAP = 2  # pixels between the images of a grid
MARGIN, TITLE = 8, 18  # pixels around panels, and for a title
MIN_SIDE = 64  # pixels of an image in a grid
GRID_COLUMNS = 8  # at most, unless the caller chooses
CELL, CELL_GAP = 96, 4  # pixels of an image on a contact sheet, and between images
MIN_TEXT_WIDTH, CAPTION_SIZE = 240, 14  # pixels of a row's text, and of its font


def image_grid(raw: Tensor, columns: int | None = None, zoom: int | None = None) -> Image.Image:
    """Draw images uint8 [N, C, H, W] in rows on white, and repeat every pixel `zoom` times.

    By default images below 64 pixels are enlarged to that side.
    """
    n, _, height, width = raw.shape
    zoom = zoom or max(1, MIN_SIDE // max(height, width))
    columns = columns or min(math.isqrt(n - 1) + 1, GRID_COLUMNS)
    rows = -(-n // columns)
    sheet = torch.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, dtype=torch.uint8)
    for k, image in enumerate(raw.cpu().expand(-1, 3, -1, -1)):
        y, x = GAP + k // columns * (height + GAP), GAP + k % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = image.permute(1, 2, 0)
    size = (sheet.shape[1] * zoom, sheet.shape[0] * zoom)
    return Image.fromarray(sheet.numpy()).resize(size, Image.Resampling.NEAREST)


def contact_sheet(images: Sequence[Image.Image | None]) -> Image.Image:
    """Draw images of any size in square cells; None is red."""
    columns = min(GRID_COLUMNS, len(images))
    step, rows = CELL + CELL_GAP, -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * step + CELL_GAP, rows * step + CELL_GAP), "white")
    for position, image in enumerate(images):
        left, top = CELL_GAP + position % columns * step, CELL_GAP + position // columns * step
        cell = _fitted(image) if image else Image.new("RGB", (CELL, CELL), "red")
        sheet.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
    return sheet


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Draw panels in a row, each below its title."""
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
    """Draw panels in a column, each below its title."""
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
    """Draw rows in a column, each above its text, which is wrapped."""
    font = ImageFont.load_default(CAPTION_SIZE)
    width = max(MIN_TEXT_WIDTH, *(row.width for row in rows.values()))
    texts = ["\n".join(textwrap.wrap(text, max(width // 8, 1))) for text in rows]
    boxes = [ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font) for text in texts]
    heights = [row.height + int(box[3]) + TITLE for row, box in zip(rows.values(), boxes, strict=True)]
    sheet = Image.new("RGB", (width + 2 * MARGIN, sum(heights) + MARGIN), "white")
    draw, y = ImageDraw.Draw(sheet), MARGIN
    for row, text, height in zip(rows.values(), texts, heights, strict=True):
        sheet.paste(row, (MARGIN, y))
        draw.multiline_text((MARGIN + 2, y + row.height + 2), text, "black", font)
        y += height
    return sheet


def save(image: Image.Image, path: Path) -> Path:
    """Write a PNG, completely or not at all."""
    information = PngInfo()
    information.add_text("Comment", MARK)
    with replacing(path) as part:
        image.save(part, format="PNG", pnginfo=information)
    return path


def _fitted(image: Image.Image) -> Image.Image:
    """Return an image in the largest size that fits a cell; small ones are enlarged without smoothing."""
    is_large = max(image.size) > CELL
    scale = CELL / max(image.size) if is_large else max(CELL // max(image.size), 1)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.LANCZOS if is_large else Image.Resampling.NEAREST)
