"""Pictures for people: panels side by side, each with its title above."""

import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

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


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG beside `path`, then rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    picture.save(part, format="PNG")
    os.replace(part, path)
    return path
