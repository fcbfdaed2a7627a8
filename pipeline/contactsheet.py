"""A contact sheet: pictures in a grid, each with a line or two below, as one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_TILE, _GAP, _LINE, _TITLE = 300, 16, 21, 52  # pixels
_PAPER, _INK, _PALE, _MAT = "#ffffff", "#1b1b1f", "#6b6f76", "#eceef1"


@dataclass(frozen=True)
class Tile:
    """A picture, uint8 [H, W, 3], what stands below it in black, and below that in grey."""

    pixels: npt.NDArray[np.uint8]
    caption: str
    note: str


def contact_sheet(tiles: Sequence[Tile], title: str, path: str | Path, columns: int = 4) -> None:
    """Write the sheet. Pictures keep their shape; texts that are too long are shortened.

    Raises:
        ValueError: there is no picture.
        OSError: the file cannot be written.
    """
    if not tiles:
        raise ValueError("a contact sheet needs a picture")
    columns = min(columns, len(tiles))
    shapes = [tile.pixels.shape[0] / tile.pixels.shape[1] for tile in tiles]
    height = round(_TILE * min(1.0, max(shapes)))
    cell_width, cell_height = _TILE + _GAP, height + 2 * _LINE + 6 + _GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, _TITLE + rows * cell_height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, bold, plain = _font("DejaVuSans-Bold.ttf", 19), _font("DejaVuSans-Bold.ttf", 14), _font("DejaVuSans.ttf", 13)
    draw.text((_GAP, _GAP), _fit(draw, title, large, sheet.width - 2 * _GAP), _INK, large)
    for place, tile in enumerate(tiles):
        left, top = _GAP + place % columns * cell_width, _TITLE + place // columns * cell_height
        draw.rectangle((left, top, left + _TILE - 1, top + height - 1), _MAT)
        picture = _scaled(tile.pixels, height)
        sheet.paste(picture, (left + (_TILE - picture.width) // 2, top + (height - picture.height) // 2))
        draw.text((left, top + height + 5), _fit(draw, tile.caption, bold, _TILE), _INK, bold)
        draw.text((left, top + height + 5 + _LINE), _fit(draw, tile.note, plain, _TILE), _PALE, plain)
    sheet.save(path, format="PNG")


def _scaled(pixels: npt.NDArray[np.uint8], height: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    scale = min(_TILE / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib brings along."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or as much of it as fits; of a long file name the end tells more, but the beginning is kept."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
