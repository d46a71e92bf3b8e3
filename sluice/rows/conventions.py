"""The ways the field writes conversations down, read into turns; whether they make sense is not judged."""

from collections.abc import Callable
from typing import NamedTuple

from sluice.rows import pieces
from sluice.rows.mentions import Mention
from sluice.rows.violations import RefusedError, Replace, missing, near, proposal, shape, text

ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {
    **{role: role for role in ROLES},
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_KEPT = ("id", "group", "tags")
_NO_TOOLS = "conversations with tools are not supported yet; take those rows out"


class Turn(NamedTuple):
    """A message, the field of the row it came from, and the images and the like that it names."""

    role: str
    content: str
    field: str
    mentions: tuple[Mention, ...] = ()


class Pair(NamedTuple):
    """A convention of one question field and one answer field."""

    question: str
    answer: str
    context: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that the convention knows."""
        return tuple(name for name in (*self[:3], "history", "system", *_KEPT) if name)


PAIRS = (
    Pair("instruction", "output", "input"),  # Alpaca
    Pair("query", "response"),  # ms-swift
    Pair("prompt", "completion"),  # TRL, OpenAI's older one
    Pair("question", "answer"),
    Pair("question", "output"),  # VQA sets
    Pair("findings", "impression"),  # radiology reports
)


def turns_of(row: dict[str, object]) -> list[Turn]:
    """Read the conversation of a row in the convention it follows; RefusedError when it follows none."""
    if (whole := _whole(row)) is not None:
        return whole
    pair = max(PAIRS, key=lambda each: (each.question in row) * 2 + (each.answer in row))
    if pair.question not in row and pair.answer not in row:
        wanted = ["messages", "conversations", *(name for each in PAIRS for name in each[:2])]
        repair = "give `messages`, or a pair such as `prompt` and `completion`"
        rename = near(row, wanted)
        said = proposal(rename, repair)
        raise RefusedError("messages", "missing-field", "a conversation", shape(row), said, rename)
    return _paired(row, pair)


def prompt_of(row: dict[str, object]) -> list[Turn] | None:
    """Read what is asked in a row whose answers stand elsewhere; None when nothing is asked."""
    if (whole := _whole(row)) is not None:
        return whole
    pair = next((each for each in PAIRS if each.question in row), None)
    if pair is None:
        return None
    asked = row[pair.question]
    return messages_of(asked, pair.question) if isinstance(asked, list) else _asked(row, pair)


def messages_of(value: object, name: str) -> list[Turn]:
    """Read a list of OpenAI's messages; RefusedError when it is none."""
    return _listed(value, name, "role", "content", _role)


def _whole(row: dict[str, object]) -> list[Turn] | None:
    """A conversation in one field, if the row has one."""
    if "messages" in row:
        return messages_of(row["messages"], "messages")
    if "conversations" in row:
        turns = _listed(row["conversations"], "conversations", "from", "value", _sharegpt_role)
        return [*_system(row), *turns]
    return None


def _paired(row: dict[str, object], pair: Pair) -> list[Turn]:
    for name in (pair.question, pair.answer):
        if name not in row:
            raise missing(name, row, f"add `{name}` or drop the row", pair.fields)
    if isinstance(row[pair.question], list):  # TRL's conversational prompt and completion
        return [turn for name in (pair.question, pair.answer) for turn in messages_of(row[name], name)]
    return [*_asked(row, pair), Turn("assistant", text(row[pair.answer], pair.answer), pair.answer)]


def _asked(row: dict[str, object], pair: Pair) -> list[Turn]:
    question = text(row[pair.question], pair.question)
    if pair.context and row.get(pair.context) not in (None, ""):
        question += "\n" + text(row[pair.context], pair.context)
    return [*_system(row), *_history(row), Turn("user", question, pair.question)]


def _system(row: dict[str, object]) -> list[Turn]:
    if row.get("system") in (None, ""):
        return []
    return [Turn("system", text(row["system"], "system"), "system")]


def _history(row: dict[str, object]) -> list[Turn]:
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RefusedError("history", "wrong-type", "a list of pairs", shape(history), "give [[question, answer], …]")
    turns = []
    for index, pair in enumerate(history):
        field = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise RefusedError(field, "wrong-type", "a list of 2", shape(pair), "give [question, answer]")
        turns.append(Turn("user", text(pair[0], f"{field}[0]"), f"{field}[0]"))
        turns.append(Turn("assistant", text(pair[1], f"{field}[1]"), f"{field}[1]"))
    return turns


def _listed(messages: object, name: str, role: str, content: str, role_of: Callable[[object, str], str]) -> list[Turn]:
    if not isinstance(messages, list) or not messages:
        kind = "empty-list" if messages == [] else "wrong-type"
        raise RefusedError(name, kind, "a list of messages", shape(messages), "give a user and an assistant message")
    turns = []
    for index, message in enumerate(messages):
        field = f"{name}[{index}]"
        if not isinstance(message, dict):
            raise RefusedError(field, "wrong-type", "an object", shape(message), f"give `{role}` and `{content}`")
        for key in (role, content):
            if key not in message:
                lost = missing(key, message, f"add `{key}`", (role, content))
                raise RefusedError(f"{field}.{key}", lost.kind, lost.expected, lost.found, lost.repair, lost.fix)
        _refuse_others(message, field, (role, content))
        said, mentions = _content(message[content], f"{field}.{content}")
        turns.append(Turn(role_of(message[role], f"{field}.{role}"), said, f"{field}.{content}", tuple(mentions)))
    return turns


def _refuse_others(message: dict[str, object], field: str, known: tuple[str, str]) -> None:
    """Refuse what would silently be lost; a name or an empty field (`"tool_calls": null`) loses nothing."""
    for key, value in message.items():
        if key not in known and key not in ("name", "id") and value not in (None, [], "", {}):
            tools = key in ("tool_calls", "function_call", "tool_call_id")
            repair = _NO_TOOLS if tools else proposal(near([key], known), f"keep only `{known[0]}` and `{known[1]}`")
            raise RefusedError(field, "unknown-field", f"only `{known[0]}` and `{known[1]}`", shape(value), repair)


def _content(value: object, field: str) -> tuple[str, list[Mention]]:
    return pieces.read(value, field) if isinstance(value, list) else (text(value, field), [])


def _role(value: object, field: str) -> str:
    if value in ROLES:
        return str(value)
    if not isinstance(value, str):
        raise RefusedError(field, "wrong-type", "system, user or assistant", shape(value), "give the role as text")
    if value in ("tool", "function"):
        raise RefusedError(field, "unsupported-role", "system, user or assistant", "a tool role", _NO_TOOLS)
    meant = near([value], ROLES)
    repair = f"perhaps `{meant.new}`?" if meant else "use system, user or assistant"
    fix = Replace(meant.new) if meant else None
    raise RefusedError(field, "unknown-role", "system, user or assistant", "another word", repair, fix)


def _sharegpt_role(value: object, field: str) -> str:
    known = SHAREGPT_ROLES.get(value) if isinstance(value, str) else None
    return known or _role(value, field)
