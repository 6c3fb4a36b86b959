"""A record as an HTML page: one file, no network access, readable without its script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from palrp_onnx.record import PARTS, Attribution, Map, Relevance, Units, entry_names
from palrp_onnx.render.account import account_of
from palrp_onnx.render.bars import BARRED, strongest
from palrp_onnx.render.facts import answers, facts, origin, verdicts
from palrp_onnx.render.flow import Word, named, paragraphs, visible, words
from palrp_onnx.render.layers import positions
from palrp_onnx.render.markup import data_uri, digits, short
from palrp_onnx.render.palette import (
    BLACK,
    DARK_LEVELS,
    DARK_TABLE,
    LEVELS,
    TABLE,
    colours,
    ink,
)
from palrp_onnx.render.picture import Seen
from palrp_onnx.render.ranked import Ranked, ranked
from palrp_onnx.render.scale import number
from palrp_onnx.render.timeline import TIMED, in_cells
from palrp_onnx.render.titles import title_of
from palrp_onnx.render.views import SIGNED, MapView, highest, views
from palrp_onnx.render.wording import (
    common_scale,
    covered,
    ends,
    failed_checks,
    notices,
    plural,
    said,
    score_remark,
    shares,
)
from palrp_onnx.types import Box

#: Longer side of an embedded picture, in pixels.
PICTURE = 1024
#: Width and height of a ribbon of units in time without their signal.
_RIBBON = (960, 60)
#: Largest number of pictures of a film next to each other.
_ACROSS = 4
_UNSEEN: Seen = (None, None)
_ZERO = len(TABLE) // 2
_FULL = 1.0


def render_html(
    record: Attribution,
    *,
    image: Image.Image | None = None,
    box: Box | None = None,
    further: Mapping[str, Seen] | None = None,
) -> bytes:
    """Draw a record as a self-contained HTML page.

    Args:
        record: The record. The page contains its relevance with all digits.
        image: The original image, for patches; without it the map is drawn alone.
        box: The part of the original that the network saw, in its pixels; all of it by default.
        further: The same two for each further explained input, by its name.

    Returns:
        The page in UTF-8. The same record and image give the same bytes.
    """
    heading = f"{visible(title_of(record))} – {visible(record.id)}"
    return page("record.html.j2", heading, view=view(record, (image, box), further)).encode()


def page(template: str, title: str, **values: Any) -> str:
    """Fill a template, with the style and the script of every page.

    The content security policy allows only this script, by its hash, and only ``data:`` images.
    """
    script = _source("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            body=template,
            title=short(title, 200),
            style=Markup(stylesheet()),
            script=Markup(script),
            digest=digest,
            **values,
        )
    )


def stylesheet() -> str:
    """The style of every page, with the colours of maps."""
    return "\n".join([_source("style.css"), _palette(), _ramps()])


def fragment(record: Attribution) -> str:
    """The HTML of one record, without the page around it."""
    template = _environment().get_template("view.html.j2")
    return template.render(view=view(record))


def view(
    record: Attribution,
    seen: Seen = _UNSEEN,
    further: Mapping[str, Seen] | None = None,
    *,
    brief: bool = False,
) -> dict[str, Any]:
    """All values of the template of a record; texts are not escaped yet. ``brief``: maps alone."""
    others = [(further or {}).get(each.input, _UNSEEN) for each in record.maps[1:]]
    maps = [
        _view_of(record, shown, *own)
        for shown, own in zip(record.maps, [seen, *others], strict=True)
    ]
    return {
        "record": record,
        "brief": brief,
        "target": visible(title_of(record)),
        "low": ends(record)[0],
        "score": score_remark(record),
        "covered": covered(record),
        "shares": shares(record),
        "said": said(record),
        "notices": [*notices(record), *failed_checks(record)],
        "warnings": [(visible(w.code), visible(w.message)) for w in record.warnings],
        "maps": maps,
        "account": account_of(record),
        "ledger": _ledger(record.ledger),
        "answers": answers(record),
        "origin": origin(record),
        "verdicts": verdicts(record),
        "facts": facts(record),
        "data": {"maps": [each["data"] for each in maps]},
    }


def _view_of(
    record: Attribution, shown: Map, image: Image.Image | None, box: Box | None
) -> dict[str, Any]:
    """Values of the template for the map of one input."""
    shown, each = in_cells(shown)
    limit, remark = common_scale(shown)
    if each > 1:
        remark = f"{remark}; a cell is the sum of {each} {shown.units.kind}s"
    units = named(shown.units, len(shown.relevance.total))
    listed = units.kind == "token"
    flow = paragraphs(units, record.input) if listed else []
    panel = positions(shown)
    joined = list(words(flow))
    sums = _sums(shown.relevance.total, joined)
    word_limit = _word_limit(shown.relevance, joined)
    maps = views(shown.relevance, limit)
    grid = (1, len(shown.relevance.total)) if units.kind in TIMED else units.grid
    picture = None if grid is None else _picture(shown, maps, grid, image, box)
    return {
        "name": visible(shown.input) if record.others else "",
        "names": [each.name for each in maps],
        "limit": number(limit).lstrip("+"),
        "score": number(highest(shown.relevance.score)),
        "remark": remark,
        "flow": flow,
        "unknown": shown.units.unknown,
        "word_limit": number(word_limit).lstrip("+"),
        "shades": shades(sums, word_limit),
        "over": [abs(value) > word_limit for value in sums],
        "several": any(len(word) > 1 for word in joined),
        "ranked": [_shown(each) for each in ranked(shown, flow)],
        "rows": list(_rows(shown.relevance, units, flow)),
        "panel": panel,
        "kind": units.kind,
        "timed": units.kind in TIMED,
        "many": plural(units.kind),
        "bars": _bars(shown.units, maps) if units.kind in BARRED else [],
        "picture": picture,
        "data": _data(shown, maps, flow, panel, picture),
    }


def _shown(found: Sequence[Ranked]) -> list[dict[str, Any]]:
    """One side of the list of the strongest: texts, and all digits for the script."""
    return [
        {
            "name": short(each.name, 40),
            "units": ",".join(map(str, each.units)),
            "values": [
                (value, number(value) if value else "0")
                for value in (each.total, each.content, each.position)
            ],
        }
        for each in found
    ]


def _bars(units: Units, maps: Sequence[MapView]) -> list[tuple[str, list[dict[str, Any]]]]:
    """For every map a bar for each of the strongest units, from the centre."""

    def bar(view: MapView, unit: int) -> dict[str, Any]:
        value = view.values[unit]
        limit = view.limit if view.signed else max(map(abs, view.values))
        share = max(-1.0, min(1.0, value / limit)) if limit else 0.0
        return {
            "unit": unit,
            "name": visible(units.name(unit)),
            "value": digits(value),
            "width": f"{50 * abs(share):.3f}",
            "left": f"{50 - 50 * max(-share, 0.0):.3f}",
            "sign": "score" if not view.signed else "minus" if value < 0 else "plus",
        }

    shown = strongest(maps[0].values)
    return [(view.name, [bar(view, unit) for unit in shown]) for view in maps]


def shades(values: ArrayLike, limit: float) -> list[int]:
    """Rows of the palette for signed numbers, as in `palrp_onnx.render.palette.colours`."""
    numbers = np.asarray(values, dtype=np.float64)
    strength = np.zeros(numbers.shape) if limit == 0 else np.minimum(np.abs(numbers) / limit, 1.0)
    step = np.rint(strength * (_ZERO - 1)).astype(np.int64)
    return np.where(numbers < 0, _ZERO - 1 - step, _ZERO + step).tolist()  # type: ignore[no-any-return]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("palrp_onnx.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, visible=visible, short=short)
    return environment


@cache
def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


@cache
def _palette() -> str:
    """A CSS class for every colour on a light and on a dark page, with letters readable on it."""
    rules = []
    for name, lights, darks in (("k", TABLE, DARK_TABLE), ("s", LEVELS, DARK_LEVELS)):
        for step, (light, dark) in enumerate(zip(lights, darks, strict=True)):
            plain = f"background:{_hex(light)};color:{_letters(light)}"
            both = (
                f"background:light-dark({_hex(light)},{_hex(dark)});"
                f"color:light-dark({_letters(light)},{_letters(dark)})"
            )
            rules.append(f".{name}{step}{{{plain};{both}}}")
    return "\n".join(rules)


def _letters(colour: NDArray[np.uint8]) -> str:
    red, green, blue = colour.tolist()
    return "#000" if ink((red, green, blue)) == BLACK else "#fff"


def _ramps() -> str:
    """The colours from left to right, for the bars below maps."""
    signed = _ramp(TABLE, DARK_TABLE, (0, 32, 64, 96, _ZERO, 159, 191, 223, 255))
    score = _ramp(LEVELS, DARK_LEVELS, (0, 32, 64, 96, 127))
    return f".ramp{{{signed}}}\n.ramp.score{{{score}}}"


def _ramp(light: NDArray[np.uint8], dark: NDArray[np.uint8], steps: Sequence[int]) -> str:
    plain = ",".join(_hex(light[step]) for step in steps)
    both = ",".join(f"light-dark({_hex(light[step])},{_hex(dark[step])})" for step in steps)
    return "".join(f"background:linear-gradient(to right,{each});" for each in (plain, both))


def _hex(colour: NDArray[np.uint8]) -> str:
    return "#" + colour.tobytes().hex()


def _rows(relevance: Relevance, units: Units, flow: list[Any]) -> Iterator[dict[str, Any]]:
    """The table of numbers, one row per unit."""
    shown = {piece.unit: piece.text for word in words(flow) for piece in word}
    for unit in range(len(relevance.total)):
        yield {
            "unit": unit,
            "name": short(shown[unit] if units.kind == "token" else visible(units.name(unit))),
            **{part: digits(getattr(relevance, part)[unit]) for part in PARTS},
        }


def _ledger(ledger: Mapping[str, float]) -> list[dict[str, Any]]:
    """Entries with bars from the centre; that of the largest entry takes half the width."""
    names = [*entry_names(ledger), "residual", "target"]
    largest = max(abs(ledger[name]) for name in names) or 1.0
    return [
        {
            "name": visible(name),
            "value": digits(ledger[name]),
            "share": _share(ledger[name], ledger["target"]),
            "width": f"{50 * abs(ledger[name]) / largest:.3f}",
            "left": f"{50 - 50 * max(-ledger[name], 0.0) / largest:.3f}",
            "sign": "minus" if ledger[name] < 0 else "plus",
        }
        for name in names
    ]


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:z.1f} %".replace("-", "−") if whole else "–"


def _picture(
    shown: Map,
    maps: Sequence[MapView],
    grid: tuple[int, int],
    image: Image.Image | None,
    box: Box | None,
) -> dict[str, Any]:
    """The maps as pictures with one pixel per unit, and their place on the original."""
    order = _arranged(grid, shown.units.pictures if image is None else 1)
    rows, columns = order.shape
    timed = shown.units.kind in TIMED
    width, height = image.size if image is not None else _RIBBON if timed else (columns, rows)
    seen = (box if image is not None else None) or Box(0, 0, width, height)
    return {
        "rows": rows,
        "columns": columns,
        "ratio": f"{width} / {height}",
        "ground": None if image is None else data_uri(_small(image)),
        "field": (
            f"left:{100 * seen.left / width:.4f}%;top:{100 * seen.top / height:.4f}%;"
            f"width:{100 * (seen.right - seen.left) / width:.4f}%;"
            f"height:{100 * (seen.bottom - seen.top) / height:.4f}%"
        ),
        "maps": [
            (view.name, data_uri(_map(view, order, clear=image is not None))) for view in maps
        ],
        "order": order.ravel().tolist() if shown.units.pictures > 1 else None,
        "pictures": (columns // grid[1], rows * shown.units.pictures // grid[0]),
    }


def _arranged(grid: tuple[int, int], pictures: int) -> NDArray[np.int64]:
    """The units of a grid where they are drawn: pictures of a film next to each other, −1 at none.

    Units have the pictures below each other.
    """
    across = min(pictures, _ACROSS)
    missing = -pictures % across
    films = np.arange(grid[0] * grid[1]).reshape(pictures, -1, grid[1])
    films = np.pad(films, ((0, missing), (0, 0), (0, 0)), constant_values=-1)
    lines = films.reshape(-1, across, *films.shape[1:]).swapaxes(1, 2)
    return lines.reshape(-1, across * grid[1])


def _map(view: MapView, order: NDArray[np.int64], clear: bool) -> Image.Image:
    """Colours of the patches. With ``clear``, patches of small relevance are transparent."""
    numbers = np.array([*view.values, 0.0])[order]
    if not clear or not view.signed:
        return Image.fromarray(view.paint(numbers, view.limit))
    strength = np.abs(numbers) / view.limit if view.limit else np.zeros_like(numbers)
    alpha = np.rint(np.minimum(strength, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.dstack([colours(np.sign(numbers), _FULL), alpha]))


def _small(image: Image.Image) -> Image.Image:
    picture = image.convert("RGB")
    picture.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    return picture


def _data(
    shown: Map,
    maps: Sequence[MapView],
    flow: list[Any],
    panel: dict[str, Any] | None,
    picture: dict[str, Any] | None,
) -> dict[str, Any]:
    """Numbers of a map for the script, which reads texts from the page."""
    return {
        **{view.name: view.values for view in maps},
        "special": shown.units.special,
        "limit": maps[0].limit,
        "word_limit": _word_limit(shown.relevance, list(words(flow))),
        "score_limit": {
            "tokens": highest(shown.relevance.score),
            "words": highest(_sums(shown.relevance.score, words(flow))),
        },
        "columns": picture and picture["columns"],
        "order": picture and picture["order"],
        "kind": shown.units.kind,
        "sites": [site.relevance for site in shown.sites] if panel and panel["source"] else [],
    }


def _word_limit(relevance: Relevance, joined: Sequence[Word]) -> float:
    """The scale for words: the largest |sum| of a word in any map, without special tokens."""
    sums = {
        special: [
            abs(total)
            for part in SIGNED
            for total in _sums(
                getattr(relevance, part), (word for word in joined if word[0].special == special)
            )
        ]
        for special in (False, True)
    }
    return max(sums[False], default=0.0) or max(sums[True], default=0.0)


def _sums(values: Sequence[float], joined: Iterable[Word]) -> list[float]:
    return [sum(values[piece.unit] for piece in word) for word in joined]
