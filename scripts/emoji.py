"""Draw captioned emoji from a colour-emoji font: OUT/train.zip, OUT/held-out.zip and OUT/held-out.txt.

    scripts/emoji FONT.ttf SIZE OUT/

The font is NotoColorEmoji.ttf of Debian's package fonts-noto-color-emoji. The script draws every pictograph of Unicode
that the font contains. It draws people and hands in five skin tones, both genders and some professions, if the font has
the combination. Names are those of Unicode, and each image has several captions. Some combinations are held out:
training data contain their parts, but not the combination. The same command always writes the same zips. Train on them
with `tdpm train --data OUT/train.zip`.
"""

import argparse
import io
import json
import random
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

from tdpm_cli.runtime.console import ProgressBar, print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import ENTRY_TIME, replacing, write_text

FONT_SIZE = 109  # the only size of the font's bitmaps, which have 136×128 pixels
CANVAS, HEIGHT = 136, 128  # pixels
FIRST, LAST = 0x2190, 0x1FB00  # the range of Unicode's pictographs
SKIPPED = range(0x1F1E6, 0x1F200), range(0x1F3FB, 0x1F400)  # letters of flags, and skin tones on their own
TONES = {0x1F3FB: "light", 0x1F3FC: "medium-light", 0x1F3FD: "medium", 0x1F3FE: "medium-dark", 0x1F3FF: "dark"}
JOINER, AS_EMOJI = "\u200d", "\ufe0f"  # zero-width joiner, variation selector 16
GENDERS = {"\u2640": "woman", "\u2642": "man"}
PEOPLE = {"\U0001f9d1": "person", "\U0001f469": "woman", "\U0001f468": "man"}
PROFESSIONS = {
    "\u2695\ufe0f": "doctor", "\u2696\ufe0f": "judge", "\u2708\ufe0f": "pilot", "\U0001f33e": "farmer",
    "\U0001f373": "cook", "\U0001f393": "student", "\U0001f3a4": "singer", "\U0001f3a8": "painter",
    "\U0001f3eb": "teacher", "\U0001f3ed": "factory worker", "\U0001f4bb": "programmer", "\U0001f4bc": "office worker",
    "\U0001f527": "mechanic", "\U0001f52c": "scientist", "\U0001f680": "astronaut", "\U0001f692": "firefighter",
}  # fmt: skip
HELD_OUT = 0.15  # of the images that combine a skin tone with something
SEED = 0
IsEmoji = Callable[[str], bool]  # whether the font draws a text as one emoji


class Emoji(NamedTuple):
    """The characters of an emoji, its name, and its skin tone ("" for none)."""

    text: str
    name: str
    tone: str = ""

    @property
    def captions(self) -> list[str]:
        """Several descriptions."""
        if not self.tone:
            return [self.name, f"an emoji of {self.name}", f"a small picture of {self.name}"]
        return [f"{self.name} with {self.tone} skin", f"an emoji of {self.name} with {self.tone} skin",
                f"{self.name}, {self.tone} skin tone"]  # fmt: skip


def emoji_in(font: ImageFont.FreeTypeFont) -> list[Emoji]:
    """Return all emoji that the font draws."""
    width = font.getlength("\U0001f600")
    is_emoji = lambda text: font.getlength(text) == width and font.getmask(text, mode="RGBA").getbbox() is not None
    emoji: list[Emoji] = []
    for code in range(FIRST, LAST):
        name = unicodedata.name(chr(code), "").lower()
        if not name or any(code in skipped for skipped in SKIPPED) or not is_emoji(chr(code)):
            continue
        emoji += [Emoji(chr(code), name), *in_tones(chr(code), name, "", is_emoji)]
        for sign, gender in GENDERS.items():
            suffix = f"{JOINER}{sign}{AS_EMOJI}"
            if is_emoji(chr(code) + suffix):
                full_name = f"{gender}: {name}"
                emoji += [Emoji(chr(code) + suffix, full_name), *in_tones(chr(code), full_name, suffix, is_emoji)]
    for person, who in PEOPLE.items():
        for sign, profession in PROFESSIONS.items():
            if is_emoji(person + JOINER + sign):
                name = f"{who} {profession}" if who != "person" else profession
                emoji += [Emoji(person + JOINER + sign, name), *in_tones(person, name, JOINER + sign, is_emoji)]
    return emoji


def in_tones(base: str, name: str, suffix: str, is_emoji: IsEmoji) -> list[Emoji]:
    """Return the same emoji in every skin tone that the font draws."""
    variants = [Emoji(f"{base}{chr(code)}{suffix}", name, tone) for code, tone in TONES.items()]
    return [variant for variant in variants if is_emoji(variant.text)]


def draw(emoji: Emoji, font: ImageFont.FreeTypeFont, size: int) -> bytes:
    """Draw an emoji on white; return a PNG."""
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    ImageDraw.Draw(canvas).text((0, (CANVAS - HEIGHT) // 2), emoji.text, font=font, embedded_color=True)
    buffer = io.BytesIO()
    canvas.resize((size, size), Image.Resampling.LANCZOS).save(buffer, format="PNG")
    return buffer.getvalue()


def split(emoji: list[Emoji]) -> tuple[list[Emoji], list[Emoji]]:
    """Divide emoji into training data and held-out combinations."""
    combined = [one for one in emoji if one.tone]
    held_out = set(random.Random(SEED).sample(combined, round(HELD_OUT * len(combined))))
    return [one for one in emoji if one not in held_out], [one for one in emoji if one in held_out]


def write(path: Path, emoji: list[Emoji], font: ImageFont.FreeTypeFont, size: int) -> None:
    """Write a zip of PNGs, and `dataset.json` with their captions."""
    captions = {}
    with (
        ProgressBar(path.name, len(emoji)) as bar,
        replacing(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
    ):
        for k, one in enumerate(emoji):
            name = f"{k:05d}.png"
            archive.writestr(zipfile.ZipInfo(name, ENTRY_TIME), draw(one, font, size))
            captions[name] = one.captions
            bar.advance(1)
        content = json.dumps({"labels": None, "captions": captions})
        archive.writestr(zipfile.ZipInfo("dataset.json", ENTRY_TIME), content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", type=Path, help="NotoColorEmoji.ttf")
    parser.add_argument("size", type=int, help="pixels of a side, 8 to 128")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    if not 8 <= options.size <= HEIGHT:
        raise InputError(
            f"SIZE is {options.size}; accepted: 8 to {HEIGHT}, because the font's images have {HEIGHT} pixels"
        )
    if not features.check("raqm"):
        raise InputError(
            "Pillow was built without raqm, which combines an emoji with a skin tone; install a wheel of Pillow"
        )
    try:
        font = ImageFont.truetype(str(options.font), FONT_SIZE)
    except OSError as error:
        raise InputError(
            f"{options.font}: not a readable colour-emoji font ({error}); install Debian's with: apt install "
            "fonts-noto-color-emoji, and use /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
        ) from None
    train, held_out = split(emoji_in(font))
    write(options.out / "train.zip", train, font, options.size)
    write(options.out / "held-out.zip", held_out, font, options.size)
    write_text(options.out / "held-out.txt", "".join(f"{emoji.captions[0]}\n" for emoji in held_out))
    print_line(
        f"done: {len(train):,} emoji to train on, {len(held_out):,} held out, {options.size}×{options.size} pixels, in "
        f"{options.out}\nnext: tdpm train --preset emoji-64-text --data {options.out / 'train.zip'}"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
