"""Pictures for people: panels side by side, each with its title above."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from tdpm_cli.run.files import replacing

MARGIN, TITLE = 8, 18  # pixels


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


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    with replacing(path) as part:
        picture.save(part, format="PNG")
    return path
