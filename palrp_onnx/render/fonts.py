"""Fonts: DejaVu Sans is packaged; other scripts take fonts that are installed.

What DejaVu Sans has looks the same on every machine. For what it lacks (Chinese, Devanagari, colour
emoji), the folders of the system are searched, or instead the folders that the variable
``PALRP_ONNX_FONTS`` names; if that is empty, no other font is used.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import uharfbuzz as hb

VARIABLE = "PALRP_ONNX_FONTS"
#: What to install where a font is missing.
ADVICE = (
    "install the Noto fonts (Debian and Ubuntu: fonts-noto-core, fonts-noto-cjk and "
    f"fonts-noto-color-emoji), or name a folder with fonts in {VARIABLE}"
)
#: Units of HarfBuzz in a pixel.
FINE = 64

_BUNDLED = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
_ELSEWHERE = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
#: Words in names of files that are not an upright sans-serif of normal weight.
_STYLES = (
    "bold italic oblique light thin black medium semi extra condensed mono serif narrow looped"
).split()
_COLOURED = "emoji"
#: Marks, joiners and selectors need no glyph of their own.
_SILENT = ("\u200c", "\u200d", "\ufe0e", "\ufe0f")


@dataclass(frozen=True)
class Font:
    """A font file."""

    path: Path

    @cached_property
    def face(self) -> hb.Face:
        """Its first face; a collection of Chinese, Japanese and Korean is asked by language."""
        return hb.Face(hb.Blob.from_file_path(str(self.path)))

    @cached_property
    def characters(self) -> hb.Set:
        """Code points that it has."""
        return self.face.unicodes

    def has(self, text: str) -> bool:
        """Whether it has glyphs for all characters."""
        return all(ord(c) in self.characters for c in text if c not in _SILENT)

    def sized(self, size: int) -> hb.Font:
        """The font at a size in pixels."""
        return _sized(self, size)


@cache
def _sized(font: Font, size: int) -> hb.Font:
    sized = hb.Font(font.face)
    sized.scale = (size * FINE, size * FINE)
    return sized


@cache
def bundled() -> Font:
    """The packaged font."""
    return Font(_BUNDLED)


@cache
def font_of(cluster: str) -> Font | None:
    """The first font that has a character with its marks, or all parts of an emoji."""
    fonts = [bundled(), *_installed(os.environ.get(VARIABLE))]
    if is_emoji(cluster):
        fonts.sort(key=lambda font: _COLOURED not in font.path.name.lower())
    return next((font for font in fonts if font.has(cluster)), None)


def is_emoji(cluster: str) -> bool:
    """Whether it is drawn in colours where a font has them."""
    return "\ufe0f" in cluster or any("\U0001f000" <= c <= "\U0001faff" for c in cluster)


def clusters(text: str) -> Iterator[str]:
    """Characters with their marks; joined emoji and flags are one."""
    start = flags = 0
    for place in range(1, len(text)):
        before, character = text[place - 1], text[place]
        flags = flags + 1 if _is_flag(before) else 0
        joined = before == "\u200d" and is_emoji(character)
        pair = _is_flag(character) and flags % 2 == 1
        if not (_extends(character) or joined or pair):
            yield text[start:place]
            start = place
    if text:
        yield text[start:]


def _extends(character: str) -> bool:
    tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    return character in _SILENT or tone or unicodedata.category(character)[0] == "M"


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


@cache
def _installed(named: str | None) -> tuple[Font, ...]:
    """Readable fonts of the folders, upright sans-serif ones first; the same files, one order."""
    if named is None:
        folders = _FOLDERS.get(sys.platform, _ELSEWHERE)
    else:
        folders = tuple(part for part in named.split(os.pathsep) if part)
    found = [
        path
        for folder in folders
        for path in Path(folder).expanduser().rglob("*")
        if path.suffix.lower() in _SUFFIXES
    ]
    fonts = map(Font, sorted(found, key=_preference))
    return tuple(font for font in fonts if font.face.glyph_count)


def _preference(path: Path) -> tuple[bool, bool, str, str]:
    name = path.name.lower()
    styled = any(style in name for style in _STYLES)
    return styled, not name.startswith("noto"), name, str(path)
