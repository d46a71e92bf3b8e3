"""How well boxes in an answer cover those that are expected; it knows no image and no names of things."""

from __future__ import annotations

import re

Box = tuple[float, float, float, float]

_NUMBER = r"(-?\d+(?:\.\d+)?)"
#: Four numbers with nothing but marks between: `[1, 2, 3, 4]`, `(1,2),(3,4)`, `<box>1 2 3 4</box>`.
_BOX = re.compile(r"(?<![\w.-])" + r"[\s,;()\[\]]+".join([_NUMBER] * 4) + r"(?!\w|\.\d)")


def box_iou(answer: str, reference: str) -> float:
    """Intersection over union of boxes (Everingham et al. 2010, 4.2): those that overlap most are paired first.

    The sum over pairs ÷ the number of boxes on the side that has more, so that boxes too many and too few cost alike.
    Boxes are x1, y1, x2, y2 in whatever unit both have; their corners may come in any order. Where a side has none, 1
    for the same words on both, else 0.
    """
    ours, theirs = boxes_of(answer), boxes_of(reference)
    if not ours or not theirs:
        return float(answer.split() == reference.split())
    overlaps = sorted(((_iou(a, b), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs)), reverse=True)
    taken, others, total = set[int](), set[int](), 0.0
    for overlap, i, j in overlaps:
        if i not in taken and j not in others:
            taken.add(i)
            others.add(j)
            total += overlap
    return total / max(len(ours), len(theirs))


def boxes_of(text: str) -> list[Box]:
    """The boxes that a text holds, in their order."""
    found = []
    for numbers in _BOX.findall(text):
        x, y, right, bottom = map(float, numbers)
        found.append((min(x, right), min(y, bottom), max(x, right), max(y, bottom)))
    return found


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else float(one == other)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
