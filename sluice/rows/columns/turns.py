"""Conversations as columns: each way of the field to write one down, read into lists of messages.

What cannot be read is null; `sluice.rows.conventions` knows what to say to it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.columns.arrays import (
    Mask,
    any_of,
    column,
    counts,
    equal,
    filled,
    lists_of,
    null_where,
    present,
    rows_of,
    strings,
)
from sluice.rows.conventions import PAIRS, ROLES, SHAREGPT_ROLES, Pair

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
MESSAGES = pa.list_(MESSAGE)
HISTORY = pa.list_(pa.list_(pa.string()))


def conversations(raw: pa.Table) -> tuple[pa.Array, Mask]:
    """The conversation of each row, and where it surely is one that ends with an answer."""
    free, found = np.ones(len(raw), np.bool_), []
    for claimed, read in _claims(raw):
        mine = free & claimed
        if mine.any():
            free &= ~mine
            found.append((mine, read()))
    messages = pa.nulls(len(raw), MESSAGES)
    for mine, claim in found:
        messages = claim if mine.all() else pc.if_else(pa.array(mine), claim, messages)
    return messages, _ends_with_an_answer(messages)


def prompts(raw: pa.Table) -> tuple[pa.Array, Mask]:
    """What is asked in each row whose answers stand elsewhere, and where that is surely right.

    Only a question in a column of text is read, with what belongs to it; a table that asks in several ways is left.
    """
    ways = dict.fromkeys(("messages", "conversations", *(pair.question for pair in PAIRS)))
    asking = [name for name in ways if _any(raw, name)]
    pair = next((pair for pair in PAIRS if [pair.question] == asking), None)
    asked = strings(raw, pair.question) if pair else None
    if pair is None or asked is None:
        return pa.nulls(len(raw), MESSAGES), np.zeros(len(raw), np.bool_)
    messages = _asked(raw, pair, asked)
    return messages, present(messages) & ~any_of(messages, ~filled(messages.flatten().field("content")))


def single(role: str, text: pa.Array, given: Mask | None = None) -> pa.Array:
    """A list of one message for each text, of none where it is not `given`; null where the text is null."""
    null = ~present(text) if given is None else np.zeros(len(text), np.bool_)
    there = ~null if given is None else given
    said = text if there.all() else text.filter(pa.array(there))
    message = pa.StructArray.from_arrays([pa.repeat(role, len(said)), said], fields=list(MESSAGE))
    return lists_of(there.astype(np.int64), message, null)


def _claims(raw: pa.Table) -> Iterator[tuple[Mask, Callable[[], pa.Array]]]:
    """Which rows follow a convention and how it is read, in the order in which `turns_of` tries them."""
    listed, sharegpt = column(raw, "messages"), column(raw, "conversations")
    if listed is not None:
        yield present(listed), partial(_turns, listed, "role", "content", {role: role for role in ROLES})
    if sharegpt is not None:
        yield present(sharegpt), partial(_sharegpt, raw, sharegpt)
    for pair in PAIRS:
        asked, answered = column(raw, pair.question), column(raw, pair.answer)
        if asked is not None and answered is not None:
            yield present(asked) & present(answered), partial(_paired, raw, pair)


def _sharegpt(raw: pa.Table, listed: pa.Array) -> pa.Array:
    said = _turns(listed, "from", "value", SHAREGPT_ROLES)
    return said if "system" not in raw.column_names else _joined([_optional(raw, "system", "system"), said])


def _paired(raw: pa.Table, pair: Pair) -> pa.Array:
    asked, answered = strings(raw, pair.question), strings(raw, pair.answer)
    if asked is None or answered is None:
        return pa.nulls(len(raw), MESSAGES)
    return _joined([_asked(raw, pair, asked), single("assistant", answered)])


def _asked(raw: pa.Table, pair: Pair, asked: pa.Array) -> pa.Array:
    context = column(raw, pair.context) if pair.context else None
    if context is not None and context.type != pa.string():
        asked = null_where(asked, present(context))
    elif context is not None:
        more = pc.binary_join_element_wise(asked, context, "\n")
        given = present(context) & ~equal(context, "")
        blank = given & ~(filled(asked) & filled(context))
        asked = null_where(pc.if_else(pa.array(given), more, asked), blank)
    before = [_optional(raw, "system", "system")] if "system" in raw.column_names else []
    if (history := column(raw, "history")) is not None:
        before.append(_history(history))
    return _joined([*before, single("user", asked)]) if before else single("user", asked)


def _turns(listed: pa.Array, role_key: str, content_key: str, roles: dict[str, str]) -> pa.Array:
    """A list of objects as MESSAGES; null where it holds anything but known roles with text."""
    if not pa.types.is_list(listed.type) or not pa.types.is_struct(listed.type.value_type):
        return pa.nulls(len(listed), MESSAGES)
    flat = listed.flatten()
    children = dict(zip((field.name for field in flat.type), flat.flatten(), strict=True))
    role, content = children.pop(role_key, None), children.pop(content_key, None)
    if role is None or content is None or role.type != pa.string() or content.type != pa.string():
        return pa.nulls(len(listed), MESSAGES)
    known = pc.index_in(role, pa.array(list(roles)))
    odd = ~present(known) | ~present(content)
    for name, child in children.items():
        if name not in ("name", "id"):  # `turns_of` drops them too
            odd |= present(child)
    said = pa.StructArray.from_arrays([pa.array(list(roles.values())).take(known), content], fields=list(MESSAGE))
    return lists_of(counts(listed), said, ~present(listed) | any_of(listed, odd))


def _history(pairs: pa.Array) -> pa.Array:
    """Question and answer pairs as MESSAGES, none where there are none; null where one is no pair of two texts."""
    if not pairs.type.equals(HISTORY):
        return lists_of(np.zeros(len(pairs), np.int64), pa.array([], MESSAGE), present(pairs))
    odd = any_of(pairs, counts(pairs.flatten()) != 2)
    text = null_where(pairs, odd).flatten().flatten()
    roles = pa.array(ROLES[1:]).take(pa.array(np.arange(len(text)) % 2))
    said = pa.StructArray.from_arrays([roles, text], fields=list(MESSAGE))
    return lists_of(np.where(odd, 0, counts(pairs) * 2), said, odd)


def _optional(raw: pa.Table, name: str, role: str) -> pa.Array:
    """One message of a role where the column has text, none where it has nothing; null where it is no text."""
    text = strings(raw, name)
    if text is None:
        other = column(raw, name)
        null = np.zeros(len(raw), np.bool_) if other is None else present(other)
        return lists_of(np.zeros(len(raw), np.int64), pa.array([], MESSAGE), null)
    return single(role, text, given=present(text) & ~equal(text, ""))


def _joined(lists: Sequence[pa.Array]) -> pa.Array:
    """Lists of MESSAGES one after the other, row by row; null where one is."""
    order = np.argsort(np.concatenate([rows_of(each) for each in lists]), kind="stable")
    said = pa.concat_arrays([each.flatten() for each in lists]).take(pa.array(order))
    null = ~np.logical_and.reduce([present(each) for each in lists])
    return lists_of(np.sum([counts(each) for each in lists], axis=0), said, null)


def _ends_with_an_answer(messages: pa.Array) -> Mask:
    """Whether there is text in every message, one is the user's, and the last is the assistant's."""
    role, content = messages.flatten().flatten()
    many = counts(messages)
    last = np.cumsum(many)[many > 0] - 1
    ends_well = np.zeros(len(messages), np.bool_)
    ends_well[many > 0] = equal(role.take(pa.array(last)), "assistant")
    return ends_well & any_of(messages, equal(role, "user")) & ~any_of(messages, ~filled(content))


def _any(raw: pa.Table, name: str) -> bool:
    found = column(raw, name)
    return found is not None and found.null_count < len(found)
