"""Captioned emoji, drawn from a colour-emoji font: OUT/train.zip, OUT/held-out.zip and OUT/held-out.txt.

    scripts/emoji FONT.ttf SIZE OUT/

The font is NotoColorEmoji.ttf, Debian's fonts-noto-color-emoji. Every character of Unicode that it has a picture of is
drawn, and people and hands in five skin tones, both genders and some professions, where it knows the combination. Names
are Unicode's. Each image has several captions; some combinations are held out: their parts are in the training data,
together they are not. The zips are the same every time, and data as any other: `tdpm train --data OUT/train.zip`.
"""

import argparse
import io
import json
import random
import sys
import unicodedata
import zipfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

from tdpm_cli.runtime.console import Meter, say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, write_text

STRIKE = 109  # the one size at which the font holds its bitmaps, of 136×128 pixels
CANVAS = 136
FIRST, LAST = 0x2190, 0x1FB00  # where Unicode has pictographs
SKIPPED = range(0x1F1E6, 0x1F200), range(0x1F3FB, 0x1F400)  # letters of flags, and skin tones by themselves
TONES = {0x1F3FB: "light", 0x1F3FC: "medium-light", 0x1F3FD: "medium", 0x1F3FE: "medium-dark", 0x1F3FF: "dark"}
JOIN, AS_PICTURE = "\u200d", "\ufe0f"
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
OLD = (1980, 1, 1, 0, 0, 0)  # the time that every entry of a zip carries


class Emoji(NamedTuple):
    """What is drawn, its name, and its skin tone ("" for none)."""

    text: str
    name: str
    tone: str = ""

    @property
    def captions(self) -> list[str]:
        """Several ways to ask for it."""
        if not self.tone:
            return [self.name, f"an emoji of {self.name}", f"a small picture of {self.name}"]
        return [f"{self.name} with {self.tone} skin", f"an emoji of {self.name} with {self.tone} skin",
                f"{self.name}, {self.tone} skin tone"]  # fmt: skip


def known(font: ImageFont.FreeTypeFont) -> list[Emoji]:
    """All that the font has one picture of."""
    width = font.getlength("\U0001f600")
    is_one = lambda text: font.getlength(text) == width and font.getmask(text, mode="RGBA").getbbox() is not None
    found = []
    for code in range(FIRST, LAST):
        name = unicodedata.name(chr(code), "").lower()
        if not name or any(code in skipped for skipped in SKIPPED) or not is_one(chr(code)):
            continue
        found += [Emoji(chr(code), name), *toned(chr(code), name, "", is_one)]
        for sign, gender in GENDERS.items():
            joined = f"{JOIN}{sign}{AS_PICTURE}"
            if is_one(chr(code) + joined):
                plain = f"{gender}: {name}"
                found += [Emoji(chr(code) + joined, plain), *toned(chr(code), plain, joined, is_one)]
    for person, who in PEOPLE.items():
        for sign, profession in PROFESSIONS.items():
            if is_one(person + JOIN + sign):
                name = f"{who} {profession}" if who != "person" else profession
                found += [Emoji(person + JOIN + sign, name), *toned(person, name, JOIN + sign, is_one)]
    return found


def toned(base: str, name: str, rest: str, is_one) -> list[Emoji]:
    """The same in every skin tone, where the font knows it so."""
    variants = [Emoji(f"{base}{chr(code)}{rest}", name, tone) for code, tone in TONES.items()]
    return [variant for variant in variants if is_one(variant.text)]


def drawn(emoji: Emoji, font: ImageFont.FreeTypeFont, size: int) -> bytes:
    """A PNG on white."""
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    ImageDraw.Draw(canvas).text((0, (CANVAS - 128) // 2), emoji.text, font=font, embedded_color=True)
    buffer = io.BytesIO()
    canvas.resize((size, size), Image.Resampling.LANCZOS).save(buffer, format="PNG")
    return buffer.getvalue()


def split(all_of_them: list[Emoji]) -> tuple[list[Emoji], list[Emoji]]:
    """Those to learn from, and the combinations that are held out."""
    combined = [emoji for emoji in all_of_them if emoji.tone]
    held_out = set(random.Random(SEED).sample(combined, round(HELD_OUT * len(combined))))
    return [emoji for emoji in all_of_them if emoji not in held_out], [e for e in all_of_them if e in held_out]


def write(path: Path, chosen: list[Emoji], font: ImageFont.FreeTypeFont, size: int) -> None:
    """A zip of PNGs, and `dataset.json` with their captions."""
    captions = {}
    with (
        Meter(path.name, len(chosen)) as meter,
        replacing(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
    ):
        for k, emoji in enumerate(chosen):
            name = f"{k:05d}.png"
            archive.writestr(zipfile.ZipInfo(name, OLD), drawn(emoji, font, size))
            captions[name] = emoji.captions
            meter.advance(1)
        archive.writestr(zipfile.ZipInfo("dataset.json", OLD), json.dumps({"labels": None, "captions": captions}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    if not 8 <= given.size <= 128:
        raise InputError(f"SIZE is {given.size}: the font's pictures have 128 pixels; accepted: 8 to 128")
    if not features.check("raqm"):
        raise InputError("Pillow was built without raqm, which joins a hand and its skin tone; use a wheel of Pillow")
    try:
        font = ImageFont.truetype(str(given.font), STRIKE)
    except OSError as error:
        raise InputError(f"{given.font}: no colour-emoji font that can be read ({error}); Debian has one: "
                         "apt install fonts-noto-color-emoji, then /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
                         ) from None  # fmt: skip
    train, held_out = split(known(font))
    write(given.out / "train.zip", train, font, given.size)
    write(given.out / "held-out.zip", held_out, font, given.size)
    write_text(given.out / "held-out.txt", "".join(f"{emoji.captions[0]}\n" for emoji in held_out))
    say(f"done: {len(train):,} emoji to learn from, {len(held_out):,} held out, of {given.size}×{given.size}, in "
        f"{given.out}\nnext: tdpm train --preset emoji-64-text --data {given.out / 'train.zip'}")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
