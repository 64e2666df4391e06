"""Decode image files: every mode that images have, turned upright, cropped and resized."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tdpm_cli.config.constants import Crop
from tdpm_cli.runtime.errors import InputError, first_line

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
DECODED_BYTES = 7 << 28  # that a process may need to decode one image: 1.75 GiB, beside the bytes of its file
PIXEL_BYTES = 28  # of these, for a pixel: JPEG and PNG need 8 to 10, JPEG 2000 and WebP more
MAX_PIXELS = DECODED_BYTES // PIXEL_BYTES  # of one image; 8192×8192
BAND_PIXELS = 1 << 20  # that are converted at a time
PILLOW_PIXELS = 4 * MAX_PIXELS  # Pillow warns above this limit; above twice as many it reads no header
BACKGROUND = (255, 255, 255)  # behind transparent pixels
UNREADABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow knows but does not decode, or for which it starts other programs, as Ghostscript for EPS."""


class TooSmall(ValueError):
    """An image that is smaller than it must be."""


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes without other programs."""
    Image.init()
    return tuple(name for name in Image.ID if name not in UNREADABLE)


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files in these formats, such as ".png"."""
    readable = {*image_formats(), "MPO"}  # MPO: several JPEGs, read as JPEG
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever a decoder raises into a ValueError with the reason, which is never empty.

    Decoders raise anything on damaged data, and a MemoryError has no text of its own.
    """
    try:
        yield
    except (ValueError, InputError) as error:
        if not str(error).strip():
            raise ValueError(reason_of(error)) from None
        raise
    except Exception as error:
        raise ValueError(reason_of(error)) from None


def open_image(content: bytes) -> Image.Image:
    """Decode an image of any format that Pillow reads. Raises ValueError, with the reason, for other content."""
    image = read_header(content)
    with decoding():
        image.load()
    return image


def read_header(content: bytes) -> Image.Image:
    """Return an image of which only the header is read. Raises ValueError, with the reason, for other content."""
    if not content:
        raise ValueError("the file is empty")
    Image.MAX_IMAGE_PIXELS = PILLOW_PIXELS
    with decoding():
        image = Image.open(io.BytesIO(content), formats=image_formats())
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are accepted")
    return image


def reason_of(error: Exception) -> str:
    """Return the reason for which Pillow could not read an image, as part of a sentence."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return "out of memory" if isinstance(error, MemoryError) else first_line(error).rstrip(".")


def upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation."""
    has_metadata = image.format == "TIFF" or any(
        "exif" in str(key).lower() or "xmp" in str(key).lower() for key in image.info
    )
    return ImageOps.exif_transpose(image) if has_metadata else image  # exif_transpose copies every image


def bits_of(content: bytes, image: Image.Image) -> int:
    """Return bits a channel. Pillow opens a PNG of 16 as one of 8; its header has the number (specification 11.2.2)."""
    if image.mode.startswith(("I", "F")):
        return 32 if image.mode in ("I", "F") and image.format != "PNG" else 16
    return content[24] if image.format == "PNG" and len(content) > 24 else 8


def is_grey(mode: str) -> bool:
    """Return whether a mode of Pillow is grey."""
    return mode in ("1", "L", "LA") or mode.startswith("I")


def is_transparent(image: Image.Image) -> bool:
    """Return whether an image has an alpha channel, or a colour that counts as transparent."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def flatten(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image of any mode to grey (1 channel) or RGB (3): 16 bits scaled to 8, transparent pixels on white.

    Raises ValueError for floating-point pixels, because no file states their range.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range; convert them to 8 or 16 bits")
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and not is_transparent(image):
        return image
    if image.width * image.height <= BAND_PIXELS:
        return _flatten(image, mode)
    flat, rows = Image.new(mode, image.size), max(BAND_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):  # a band at a time, because a conversion makes several copies
        band = (0, top, image.width, min(top + rows, image.height))
        flat.paste(_flatten(image.crop(band), mode), band)
    return flat


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    if is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image)
    return image if image.mode == mode else image.convert(mode)


def fit(image: Image.Image, size: tuple[int, int], crop: Crop) -> Image.Image:
    """Bring an image to `size` (width, height).

    "centre": the largest part of that aspect in the middle, resized by Lanczos.
    "wide": the full width at the aspect, on a black square (StyleGAN's center-crop-wide).
    "dhariwal": halved by averaging while twice too large, the smaller side resized by bicubic, then the middle
    (Dhariwal and Nichol 2021).
    """
    if image.size == size:
        return image
    return {"centre": _centre, "wide": _wide, "dhariwal": _dhariwal}[crop](image, size)


def _centre(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def _wide(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    width, height = size
    canvas = Image.new(image.mode, (width, width))
    canvas.paste(_centre(image, size), (0, (width - height) // 2))
    return canvas


def _dhariwal(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    while min(a // b for a, b in zip(image.size, size, strict=True)) >= 2:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(b / a for a, b in zip(image.size, size, strict=True))
    resized = (max(round(image.width * scale), size[0]), max(round(image.height * scale), size[1]))
    image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def prepare(
    content: bytes, shape: Sequence[int], crop: Crop = "centre", upscale: bool = False, box: Box | None = None
) -> Image.Image:
    """Return the image in `content`, or a `box` of it, upright, grey or RGB, in the size of `shape` [C, H, W].

    Raises ValueError for an image that cannot be decoded or that is smaller than the box, and TooSmall for one smaller
    than the shape without `upscale`.
    """
    with decoding():
        return _prepare(content, shape, crop, upscale, box)


def _prepare(content: bytes, shape: Sequence[int], crop: Crop, upscale: bool, box: Box | None) -> Image.Image:
    channels, height, width = shape
    image = upright(open_image(content))
    if box is not None:
        if image.width < box[2] or image.height < box[3]:
            raise ValueError(f"{image.width}×{image.height} pixels; the box {box} needs more")
        image = image.crop(box)
    if not upscale:
        require_size(image, (width, height))
    return fit(flatten(image, channels), (width, height), crop)


def require_size(image: Image.Image, size: tuple[int, int]) -> None:
    """Raise TooSmall for an image smaller than `size` (width, height)."""
    if image.width < size[0] or image.height < size[1]:
        raise TooSmall(f"{image.width}×{image.height} pixels, smaller than {size[0]}×{size[1]}")


def to_array(image: Image.Image) -> np.ndarray:
    """Return a grey or RGB image as uint8 [C, H, W], read-only."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def to_tensor(image: Image.Image) -> Tensor:
    """Return a grey or RGB image as uint8 [C, H, W]."""
    return torch.from_numpy(to_array(image).copy())


def from_tensor(raw: Tensor) -> Image.Image:
    """Return uint8 [C, H, W] as a grey or RGB image."""
    return from_array(raw.permute(1, 2, 0).contiguous().numpy())


def from_array(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [H, W, C] as a grey or RGB image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
