"""A frame of a dataset's own columns into a frame of canonical ones, by expressions; files are not known here."""

from __future__ import annotations

import polars as pl

from sluice.catalogue import template
from sluice.catalogue.choices import choice, staged
from sluice.catalogue.conversations import conversation, messages, with_system
from sluice.catalogue.entry import Layout, Mapping, Side
from sluice.catalogue.template import TemplateError
from sluice.catalogue.values import Schema, named, value, values

TEXTS = ("text", "query", "positive")
SIDES: tuple[Side, ...] = ("prompt", "completion", "chosen", "rejected")
LISTS = ("negatives", "images", "audios")


def canonical(frame: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """The complete rows of a frame as canonical columns; rows that lack a field the mapping fills are not among them.

    Raises TemplateError when a path does not fit the types of the columns.
    """
    if mapping.choice:
        frame = staged(frame, mapping.choice)
    made = frame.select(**expressions(mapping, frame.schema))
    complete = [_complete(name, made.schema[name]) for name in made.columns if name != "negatives"]
    if mapping.tokens:
        complete.append(pl.col("tokens").list.len() == pl.col("tags").list.len())
    return made.filter(pl.all_horizontal(complete))


def wanted(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """The rows that the layout is after: nested lists exploded, other rows filtered out."""
    for column in layout.explode:
        if not isinstance(frame.schema.get(column), pl.List):
            raise TemplateError(f"`explode` wants a list in `{column}`")
        frame = frame.explode(column)
        if isinstance(kind := frame.schema[column], pl.Struct):
            inner = [field.name for field in kind.fields]
            frame = frame.drop([name for name in inner if name in frame.columns and name != column])
            frame = frame.unnest(column)
    for column, allowed in layout.where.items():
        frame = frame.filter(template.text(f"{{{column}}}", frame.schema).is_in(allowed))
    for column, least in layout.at_least.items():
        frame = frame.filter(template.text(f"{{{column}}}", frame.schema).cast(pl.Float64, strict=False) >= least)
    return frame


def expressions(mapping: Mapping, schema: Schema) -> dict[str, pl.Expr]:
    """An expression for each canonical field that the mapping fills, in the order of the canonical row."""
    made: dict[str, pl.Expr] = {}
    if mapping.choice:
        made["messages"] = with_system(choice(mapping.choice), mapping, schema)
    elif mapping.messages:
        made["messages"] = with_system(messages(mapping.messages, schema), mapping, schema)
    for side in SIDES:
        if turns := mapping.conversations.get(side):
            made[side] = conversation(turns, schema)
        elif said := getattr(mapping, side):
            made[side] = value(said, schema)
    for name in TEXTS:
        if given := getattr(mapping, name):
            made[name] = value(given, schema)
    if mapping.label:
        made["label"] = _truth(value(mapping.label, schema)) if "completion" in made else value(mapping.label, schema)
    if mapping.labels:
        made["labels"] = named(_labels(mapping, schema), mapping.label_names)
    if mapping.tokens and mapping.tags:
        made["tokens"] = values(mapping.tokens, schema)
        made["tags"] = named(values(mapping.tags, schema), mapping.tag_names)
    for name in LISTS:
        if given := getattr(mapping, name):
            made[name] = values(given, schema)
    return made


def _labels(mapping: Mapping, schema: Schema) -> pl.Expr:
    given = mapping.labels or []
    if mapping.label_separator:
        return value(given if isinstance(given, str) else given[0], schema).str.split(mapping.label_separator)
    return values(given, schema)


def _truth(column: pl.Expr) -> pl.Expr:
    known = dict.fromkeys(("true", "1", "yes", "desirable"), True)
    known |= dict.fromkeys(("false", "0", "-1", "no", "undesirable"), False)
    return column.str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.Boolean)


def _complete(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if not isinstance(kind, pl.List):
        return column.is_not_null()
    if not isinstance(kind.inner, pl.Struct):
        return column.list.len().fill_null(0) > 0
    role, content = pl.element().struct.field("role"), pl.element().struct.field("content")
    broken = role.is_null() | ~content.str.contains(r"\S").fill_null(False)
    whole = ~column.list.eval(broken).list.any().fill_null(True)
    roles = column.list.eval(role)
    answered = roles.list.get(-1, null_on_oob=True) == "assistant"
    if name == "messages":
        return whole & answered & roles.list.contains("user")
    return whole & (roles.list.len() > 0)
