"""Two canvases with the same methods: one writes SVG, one pixels (PNG). A picture is laid out once and drawn on either.

Coordinates are pixels at scale 1, y downwards. Text on the PNG is in the typeface of RDKit's atom labels, which comes
with RDKit and has Latin letters and common signs; SVG and HTML show any letters that the viewer has.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from molcmim.beside import written_beside
from molcmim.moleculenet.plots import escape
from molcmim.pictures.molecules import INK, draw_pixels, draw_svg

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

SUFFIXES = (".png", ".svg", ".html")
SCALE = 2.0  #: pixels of the PNG for one of the layout: sharp on today's screens and in print
MOST_PIXELS = 300_000_000  #: of a PNG: 0.9 GB while it is made
FONTS = 'font-family="Helvetica, Arial, Liberation Sans, sans-serif"'
_SMOOTH = 4  #: lines are drawn so many times larger and reduced

SOFT, LINE, PALE, REFERENCE, REFERENCE_PALE, BAD = "#5b6570", "#e1e5ea", "#f6f8fa", "#0a5fa5", "#eaf3fb", "#b8430a"
"""Colours of `molcmim.moleculenet.report_style`: blue and vermilion are told apart by the colour-blind."""

Point = tuple[float, float]


class Canvas(Protocol):
    """What a picture is drawn on."""

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str = "none", stroke: str = "none",
        line: float = 1.0, radius: float = 0.0,
    ) -> None: ...  # fmt: skip

    def lines(self, points: Sequence[Point], stroke: str, line: float = 1.0, opacity: float = 1.0) -> None: ...

    def area(self, points: Sequence[Point], fill: str, opacity: float = 1.0) -> None: ...

    def text(
        self, x: float, y: float, text: str, size: float = 12.0, colour: str = INK, bold: bool = False,
        anchor: str = "start",
    ) -> None: ...  # fmt: skip

    def molecule(self, x: float, y: float, width: float, height: float, mol: Any) -> None: ...


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to be written; call it before long work.

    Raises
    ------
    ValueError
        If the name ends neither in .png nor in .svg or .html.
    FileNotFoundError
        If the folder doesn't exist.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"image: expected a file name ending in .png, .svg or .html, got {target.name!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"image: no such directory: {target.parent}")
    return target


def write(path: Path, content: bytes) -> None:
    """Write beside and rename, so that no half picture is ever seen."""
    with written_beside(path) as part:
        part.write_bytes(content)


def clean(text: object) -> str:
    """One printable line: control characters and broken Unicode, which XML forbids, become question marks."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def cut(text: str, size: float, width: float) -> str:
    """A text that fits into so many pixels at this size, with an ellipsis if its end is missing."""
    most = max(1, int(width / (0.54 * size)))
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


class SvgCanvas:
    """Collects SVG elements; `render` gives the text of an image, or of an element in a page."""

    def __init__(self, width: float, height: float, label: str = "") -> None:
        self.width, self.height, self.label = width, height, clean(label)
        self.items: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str = "none", stroke: str = "none",
        line: float = 1.0, radius: float = 0.0,
    ) -> None:  # fmt: skip
        more = f' stroke="{stroke}" stroke-width="{line:g}"' if stroke != "none" else ""
        size = f'width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self.items.append(f'<rect x="{x:g}" y="{y:g}" {size} fill="{fill}"{more}/>')

    def lines(self, points: Sequence[Point], stroke: str, line: float = 1.0, opacity: float = 1.0) -> None:
        more = f' stroke-opacity="{opacity:g}"' if opacity < 1 else ""
        style = f'fill="none" stroke="{stroke}" stroke-width="{line:g}" stroke-linejoin="round"{more}'
        self.items.append(f'<path {style} d="{_path(points)}"/>')

    def area(self, points: Sequence[Point], fill: str, opacity: float = 1.0) -> None:
        more = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
        self.items.append(f'<path fill="{fill}"{more} d="{_path(points)}Z"/>')

    def text(
        self, x: float, y: float, text: str, size: float = 12.0, colour: str = INK, bold: bool = False,
        anchor: str = "start",
    ) -> None:  # fmt: skip
        more = ' font-weight="600"' if bold else ""
        more += f' text-anchor="{anchor}"' if anchor != "start" else ""
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}"'
        self.items.append(f"<text {place}{more}>{escape(clean(text))}</text>")

    def molecule(self, x: float, y: float, width: float, height: float, mol: Any) -> None:
        self.items.append(f'<g transform="translate({x:.1f} {y:.1f})">{draw_svg(mol, width, height)}</g>')

    def render(self, background: str = "#ffffff") -> str:
        size = f'viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" height="{self.height:g}"'
        paper = f'<rect width="100%" height="100%" fill="{background}"/>' if background != "none" else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self.label)}" {FONTS}>'
            f"{paper}{''.join(self.items)}</svg>"
        )


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


class PngCanvas:
    """Draws on a Pillow image; `render` gives the bytes of a PNG file.

    Raises
    ------
    ImportError
        If Pillow is missing: packages of RDKit usually bring it.
    ValueError
        If the picture is too large to be held in memory.
    """

    def __init__(self, width: float, height: float, scale: float = SCALE) -> None:
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError(
                "a .png picture needs Pillow (pip install pillow); .svg and .html pictures don't"
            ) from error
        size = round(width * scale), round(height * scale)
        if size[0] * size[1] > MOST_PIXELS:
            raise ValueError(
                f"limit: expected a PNG of at most {MOST_PIXELS / 1e6:.0f} million pixels, got "
                f"{size[0] * size[1] / 1e6:.0f} million; show fewer molecules, or write .svg or .html"
            )
        self.scale = scale
        self.image = Image.new("RGB", size, "#ffffff")
        self._draw = ImageDraw.Draw(self.image)
        self._fonts: dict[float, FreeTypeFont | ImageFont] = {}

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str = "none", stroke: str = "none",
        line: float = 1.0, radius: float = 0.0,
    ) -> None:  # fmt: skip
        s = self.scale
        box = (round(x * s), round(y * s), round((x + width) * s) - 1, round((y + height) * s) - 1)
        self._draw.rounded_rectangle(
            box, radius * s, None if fill == "none" else fill, None if stroke == "none" else stroke, round(line * s)
        )

    def lines(self, points: Sequence[Point], stroke: str, line: float = 1.0, opacity: float = 1.0) -> None:
        self._smooth(points, stroke, opacity, line)

    def area(self, points: Sequence[Point], fill: str, opacity: float = 1.0) -> None:
        self._smooth(points, fill, opacity, 0.0)

    def text(
        self, x: float, y: float, text: str, size: float = 12.0, colour: str = INK, bold: bool = False,
        anchor: str = "start",
    ) -> None:  # fmt: skip
        s = self.scale
        font = self._fonts.setdefault(size, _font(size * s))
        place = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        weight = 0.022 * size * s if bold else 0.0  # the typeface has no bold letters
        self._draw.text((x * s, y * s), clean(text), colour, font, place, stroke_width=weight)

    def molecule(self, x: float, y: float, width: float, height: float, mol: Any) -> None:
        drawn = draw_pixels(mol, width, height, self.scale)
        if drawn is not None:
            self.image.paste(drawn, (round(x * self.scale), round(y * self.scale)), drawn)

    def render(self) -> bytes:
        buffer = io.BytesIO()
        dpi = 96 * self.scale
        self.image.save(buffer, "PNG", dpi=(dpi, dpi))
        return buffer.getvalue()

    def _smooth(self, points: Sequence[Point], colour: str, opacity: float, line: float) -> None:
        """A line, or an area if `line` is 0, with soft edges: Pillow's own are ragged."""
        from PIL import Image, ImageDraw

        s, edge = self.scale, line / 2 + 2
        left, top = (math.floor((min(p[k] for p in points) - edge) * s) for k in (0, 1))
        right, bottom = (math.ceil((max(p[k] for p in points) + edge) * s) for k in (0, 1))
        size = right - left, bottom - top
        mask = Image.new("L", (size[0] * _SMOOTH, size[1] * _SMOOTH))
        large = [((x * s - left) * _SMOOTH, (y * s - top) * _SMOOTH) for x, y in points]
        draw, strength = ImageDraw.Draw(mask), round(255 * opacity)
        if line:
            draw.line(large, strength, max(1, round(line * s * _SMOOTH)), joint="curve")
        else:
            draw.polygon(large, strength)
        mask = mask.resize(size, Image.Resampling.BOX)
        self.image.paste(Image.new("RGB", size, colour), (left, top), mask)


def _font(size: float) -> FreeTypeFont | ImageFont:
    """RDKit's typeface, or Pillow's where RDKit was installed without it."""
    from PIL import ImageFont
    from rdkit import RDConfig

    telex = Path(RDConfig.RDDataDir) / "Fonts" / "Telex-Regular.ttf"
    return ImageFont.truetype(telex, size) if telex.is_file() else ImageFont.load_default(size)
