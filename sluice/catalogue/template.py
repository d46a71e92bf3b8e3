"""Templates such as `{question}` or `{choices.text.0}` as Polars expressions; it knows no field they may fill.

A path goes from a column into objects (a name) and lists (an index, from the end when negative); a name after a list
of objects gives the list of that part of each. Text that is JSON can be gone into as well. `{id:012}` is filled up
with zeros to 12 digits, `{{` is a brace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import polars as pl

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP = re.compile(r"[^.{}]+")
_WIDTH = re.compile(r"(.+):0(\d+)")


class TemplateError(ValueError):
    """A template that cannot be read, or a path that leads nowhere in the data; says which."""


class Path(NamedTuple):
    """The way to a value: a column, then names and indexes."""

    column: str
    steps: tuple[str, ...]
    width: int = 0

    def __str__(self) -> str:
        return ".".join((self.column, *self.steps))


def parse(template: str) -> list[str | Path]:
    """The literal texts and the paths of a template, in their order. Raises TemplateError."""
    parts: list[str | Path] = []
    end = 0
    for match in _PLACE.finditer(template):
        parts.append(template[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match[1] is None:
            raise TemplateError(f"`{template}` has a lone brace; write {{{{ or }}}} for one")
        else:
            parts.append(_path(match[1], template))
    return [part for part in [*parts, template[end:]] if part != ""]


def path(template: str) -> Path:
    """The one path that a template such as `{choices.text}` consists of. Raises TemplateError."""
    parts = parse(template)
    if len(parts) != 1 or not isinstance(parts[0], Path):
        raise TemplateError(f"`{template}` should be one path, such as `{{choices.text}}`")
    return parts[0]


def columns_of(template: str) -> Iterator[str]:
    """The columns that a template reads. Raises TemplateError."""
    return (part.column for part in parse(template) if isinstance(part, Path))


def text(template: str, schema: Mapping[str, pl.DataType], join: str = "\n") -> pl.Expr:
    """The filled template as text; null where all its paths lead to nothing.

    Empty lines around it go; spaces before the first line stay, for the sake of code. Items of lists are joined.
    """
    import polars as pl

    parts = parse(template)
    filled = [_as_text(part, schema, join) if isinstance(part, Path) else pl.lit(part) for part in parts]
    paths = [expression for part, expression in zip(parts, filled, strict=True) if isinstance(part, Path)]
    whole = pl.concat_str(filled, ignore_nulls=True).str.strip_chars_end().str.strip_chars_start("\r\n")
    if not paths:
        return whole
    return pl.when(pl.any_horizontal([each.str.contains(r"\S") for each in paths])).then(whole)


def reach(way: Path, schema: Mapping[str, pl.DataType]) -> tuple[pl.Expr, pl.DataType]:
    """The value at the end of a path and its type; null where the column or a part is absent."""
    import polars as pl

    if way.column not in schema:
        return pl.lit(None), pl.Null()
    expression, kind = pl.col(way.column), schema[way.column]
    for step in way.steps:
        expression, kind = _step(expression, kind, step, way)
    return expression, kind


def _step(expression: pl.Expr, kind: pl.DataType, step: str, way: Path) -> tuple[pl.Expr, pl.DataType]:
    import polars as pl

    if isinstance(kind, pl.Struct):
        inner = dict(kind).get(step)
        return (expression.struct.field(step), _kind(inner)) if inner is not None else (pl.lit(None), pl.Null())
    if isinstance(kind, pl.Array):
        expression, kind = expression.arr.to_list(), pl.List(kind.inner)
    if isinstance(kind, pl.List):
        inner = _kind(kind.inner)
        if step.lstrip("-").isdigit():
            return expression.list.get(int(step), null_on_oob=True), inner
        if isinstance(inner, pl.Struct):
            part = dict(inner).get(step)
            if part is None:
                return pl.lit(None), pl.Null()
            return expression.list.eval(pl.element().struct.field(step)), pl.List(part)
    if isinstance(kind, pl.String):
        return expression.str.json_path_match(f"$[{step}]" if step.isdigit() else f"$.{step}"), kind
    if isinstance(kind, pl.Null):
        return expression, kind
    raise TemplateError(f"`{way}` goes into a {kind} for `{step}`")


def _as_text(way: Path, schema: Mapping[str, pl.DataType], join: str) -> pl.Expr:
    import polars as pl

    expression, kind = reach(way, schema)
    if isinstance(kind, pl.Array):
        expression, kind = expression.arr.to_list(), pl.List(kind.inner)
    if isinstance(kind, pl.List) and not isinstance(kind.inner, pl.Struct | pl.List):
        return expression.cast(pl.List(pl.String)).list.join(join, ignore_nulls=True)
    if isinstance(kind, pl.Struct | pl.List | pl.Binary):
        raise TemplateError(f"`{way}` is a {kind.base_type()}, not text; the path should go on into it")
    plain = expression.cast(pl.String)
    return plain.str.zfill(way.width) if way.width else plain


def _path(inside: str, template: str) -> Path:
    padded = _WIDTH.fullmatch(inside)
    inside, width = (padded[1], int(padded[2])) if padded else (inside, 0)
    steps = inside.split(".")
    if not all(_STEP.fullmatch(step) for step in steps):
        raise TemplateError(f"`{template}` has `{{{inside}}}`, which names no column")
    return Path(steps[0], tuple(steps[1:]), width)


def _kind(kind: object) -> pl.DataType:
    """An instance, where Polars may give the class of a type."""
    import polars as pl

    return kind() if isinstance(kind, type) and issubclass(kind, pl.DataType) else kind  # type: ignore[return-value]
