"""Where token boxes stand: lines of words, words of boxes without a gap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """One token's box, before it has a place.

    Attributes:
        width: In pixels; at most the line's.
        joined: Whether it continues the word of the box before it.
        breaks: Line breaks before it.
        mirrored: Whether its text runs from right to left.
    """

    width: int
    joined: bool = False
    breaks: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class Place:
    """A box's line, counted from 0, and its left edge."""

    line: int
    x: int


def wrap(boxes: Sequence[Box], width: int, gap: int) -> list[Place]:
    """Places of all boxes on lines of ``width`` pixels.

    A word that fits on a line is not broken. Words stand ``gap`` apart; neighbours on one line
    that run from right to left swap sides, so that they read in their own direction.
    """
    places: list[Place] = []
    line = edge = 0
    for word in _words(boxes):
        line, edge = _break(line, edge, word[0].breaks)
        x = edge + gap if edge else 0
        whole = sum(box.width for box in word)
        if edge and x + whole > width >= whole:
            line, x = line + 1, 0
        for box in word:
            if x and x + box.width > width:
                line, x = line + 1, 0
            places.append(Place(line, x))
            x = edge = x + box.width
    return _mirror(boxes, places)


def _words(boxes: Sequence[Box]) -> Iterator[list[Box]]:
    word: list[Box] = []
    for box in boxes:
        if word and (box.breaks or not box.joined):
            yield word
            word = []
        word.append(box)
    if word:
        yield word


def _break(line: int, edge: int, breaks: int) -> tuple[int, int]:
    """The line and the filled width after line breaks; the first line is never left empty."""
    return (line + breaks, 0) if breaks and edge else (line, edge)


def _mirror(boxes: Sequence[Box], places: list[Place]) -> list[Place]:
    """Turn every run of right-to-left boxes on one line around its middle."""
    turned = list(places)
    start = 0
    while start < len(boxes):
        stop = start + 1
        while (
            boxes[start].mirrored
            and stop < len(boxes)
            and boxes[stop].mirrored
            and places[stop].line == places[start].line
        ):
            stop += 1
        ends = places[start].x + places[stop - 1].x + boxes[stop - 1].width
        if boxes[start].mirrored:
            for i in range(start, stop):
                turned[i] = Place(places[i].line, ends - places[i].x - boxes[i].width)
        start = stop
    return turned
