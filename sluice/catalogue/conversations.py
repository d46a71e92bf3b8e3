"""Lists of messages out of columns, as Polars expressions; what a good conversation is stands in ``mapping``."""

from __future__ import annotations

import polars as pl

from sluice.catalogue import template
from sluice.catalogue.entry import Conversation, Mapping, Value
from sluice.catalogue.template import TemplateError
from sluice.catalogue.values import Schema, value

MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})
ROLES = {
    **{role: role for role in ("system", "user", "assistant")},
    **dict.fromkeys(("human", "prompter", "User", "Human"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "model", "Assistant"), "assistant"),
}


def messages(given: list[dict[str, Value]] | Conversation | object, schema: Schema) -> pl.Expr:
    if not isinstance(given, Conversation):
        assert isinstance(given, list)
        return listed([(role, value(said, schema)) for turn in given for role, said in turn.items()])
    turns = conversation(given, schema)
    answered = turns.list.get(-1, null_on_oob=True).struct.field("role") == "assistant"
    return pl.when(answered).then(turns).otherwise(turns.list.slice(0, turns.list.len().cast(pl.Int64) - 1))


def conversation(given: Conversation, schema: Schema) -> pl.Expr:
    """Turns as a list of messages; a role that is not known becomes null."""
    expression, kind = template.reach(template.path(given.turns), schema)
    if isinstance(kind, pl.Null):
        return pl.lit(None, dtype=pl.List(MESSAGE))
    if isinstance(kind, pl.String):
        kind = pl.List(pl.Struct({given.role: pl.String, given.content: pl.String}))
        expression = pl.when(expression.str.starts_with("[")).then(expression).str.json_decode(kind)
    if not isinstance(kind, pl.List):
        raise TemplateError(f"`{given.turns}` is a {kind}, not a list of turns")
    if given.alternate:
        even = pl.int_range(pl.len()) % 2 == 0
        role, content = pl.when(even).then(pl.lit("user")).otherwise(pl.lit("assistant")), pl.element()
    else:
        inner = kind.inner
        if not isinstance(inner, pl.Struct) or not {given.role, given.content} <= {each.name for each in inner.fields}:
            raise TemplateError(f"`{given.turns}` has turns without `{given.role}` and `{given.content}`")
        named = {**ROLES, **given.roles}
        role = pl.element().struct.field(given.role).cast(pl.String)
        role = role.replace_strict(named, default=None, return_dtype=pl.String)
        content = pl.element().struct.field(given.content)
    return expression.list.eval(pl.struct(role=role, content=content.cast(pl.String)))


def listed(turns: list[tuple[str, pl.Expr]]) -> pl.Expr:
    """Messages as a list; a system message without content is left out of it."""
    messages = pl.concat_list([pl.struct(role=pl.lit(role), content=said) for role, said in turns])
    if not any(role == "system" for role, _ in turns):
        return messages
    role, content = pl.element().struct.field("role"), pl.element().struct.field("content")
    return messages.list.filter((role != "system") | content.is_not_null())


def with_system(messages: pl.Expr, mapping: Mapping, schema: Schema) -> pl.Expr:
    if mapping.system is None:
        return messages
    said = value(mapping.system, schema)
    return (
        pl.when(said.is_null() | messages.is_null())
        .then(messages)
        .otherwise(pl.concat_list(listed([("user", said)]).list.eval(_as_system()), messages))
    )


def _as_system() -> pl.Expr:
    return pl.struct(role=pl.lit("system"), content=pl.element().struct.field("content"))
