"""Reads the rows a recipe is given; knows no tokenizer. Errors name a row's line, never its content."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from sluice.spans import Span

Message = dict[str, str]


@dataclass(frozen=True)
class Preference:
    """A prompt, which ends with what is asked, and two answers to it, the first the better one."""

    prompt: list[Message]
    chosen: Message
    rejected: Message


@dataclass(frozen=True)
class Feedback:
    """A prompt, which ends with what is asked, an answer to it, and whether that is a good one."""

    prompt: list[Message]
    completion: Message
    good: bool


@dataclass(frozen=True)
class Retrieval:
    """A query, the texts that fit it, and texts that are known not to."""

    query: str
    positive: list[str]
    negatives: list[str]


@dataclass(frozen=True)
class Classified:
    """A text with its labels; `where` names its line in errors."""

    text: str
    labels: list[str]
    where: str


@dataclass(frozen=True)
class Named:
    """A text and what is named in it."""

    text: str
    spans: list[Span]


def read_conversations(path: Path) -> list[list[Message]]:
    """The `messages` of every row; each conversation ends with an answer. Raises BadInput."""
    return _read(path, _conversation)


def read_texts(path: Path) -> list[str]:
    """The `text` of every row. Raises BadInput."""
    return _read(path, _text)


def read_preferences(path: Path) -> list[Preference]:
    """The two answers of every row. Raises BadInput."""
    return _read(path, _preference)


def read_feedback(path: Path) -> list[Feedback]:
    """The answer and the verdict of every row. Raises BadInput."""
    return _read(path, _feedback)


def read_retrieval(path: Path) -> list[Retrieval]:
    """The query of every row and its texts. Raises BadInput."""
    return _read(path, _retrieval)


def read_classified(path: Path) -> list[Classified]:
    """The text of every row and its labels, each once. Raises BadInput."""
    return _read(path, _classified)


def read_rows(path: Path, parse: Callable[[Any, str], Any]) -> list[Any]:
    """What `parse(row, where)` makes of every row; `where` names its line. Raises BadInput."""
    if not path.is_file():
        raise BadInput(f"The job directory has no in/{path.name}.")
    rows = [parse(row, f"in/{path.name} line {number}") for number, row in _json_lines(path)]
    if not rows:
        raise BadInput(f"in/{path.name} has no rows; give at least one.")
    return rows


def read_named(path: Path) -> list[Named]:
    """The text of every row and its named spans. Raises BadInput."""
    return _read(path, _named)


def _read(path: Path, parse: Callable[[Any, str], Any]) -> list[Any]:
    """Rows of which the texts are all there is to learn."""
    return read_rows(path, lambda row, where: parse(_blind(row, where), where))


def _blind(row: Any, where: str) -> Any:
    if isinstance(row, dict) and (row.get("images") or row.get("videos") or row.get("audios")):
        raise BadInput(
            f"{where} names images, videos or sounds, of which this recipe would see nothing; "
            "take a task type whose model sees, such as vqa, or leave them out of the rows."
        )
    return row


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise BadInput(f"in/{path.name} line {number} is not JSON; each line must be one object.") from error


def _conversation(row: Any, where: str) -> list[Message]:
    messages = _messages(row, "messages", where)
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise BadInput(f"{where} does not end with an answer: the last message must be a non-empty assistant one.")
    return messages


def _preference(row: Any, where: str) -> Preference:
    return Preference(_prompt(row, where), _answer(row, "chosen", where), _answer(row, "rejected", where))


def _feedback(row: Any, where: str) -> Feedback:
    prompt, completion, good = _prompt(row, where), _answer(row, "completion", where), row.get("label")
    if not isinstance(good, bool):
        raise BadInput(f"{where} has no `label` that is true or false.")
    return Feedback(prompt, completion, good)


def _prompt(row: Any, where: str) -> list[Message]:
    prompt = _messages(row, "prompt", where)
    if prompt[-1]["role"] == "assistant":
        raise BadInput(f"{where} has a `prompt` that ends with an answer; answers have fields of their own.")
    return prompt


def _answer(row: Any, field: str, where: str) -> Message:
    """The one message of an answer; of several turns the loss would count what the user says too."""
    messages = _messages(row, field, where)
    if len(messages) > 1 or messages[0]["role"] != "assistant" or not messages[0]["content"]:
        raise BadInput(f"{where} has a `{field}` that is not one non-empty message of the assistant.")
    return messages[0]


def _messages(row: Any, field: str, where: str) -> list[Message]:
    messages = row.get(field) if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise BadInput(f"{where} has no list `{field}`.")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise BadInput(f"{where} has a message whose role is not system, user or assistant.")
        if not isinstance(message.get("content"), str):
            raise BadInput(f"{where} has a message whose content is not text.")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _retrieval(row: Any, where: str) -> Retrieval:
    query, positive = _string(row, "query", where), _strings(row, "positive", where)
    if not positive:
        raise BadInput(f"{where} has no text in `positive` that fits its query.")
    return Retrieval(query, positive, _strings(row, "negatives", where))


def _classified(row: Any, where: str) -> Classified:
    return Classified(_string(row, "text", where), _strings(row, "label", where), where)


def _named(row: Any, where: str) -> Named:
    text, entities = _string(row, "text", where), row.get("entities")
    if not isinstance(entities, list):
        raise BadInput(f"{where} has no list `entities`.")
    try:
        spans = [Span(int(each["start"]), int(each["end"]), str(each["label"])) for each in entities]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where} has an entity without `start`, `end` or `label`.") from error
    if not all(0 <= span.start < span.end <= len(text) and span.label for span in spans):
        raise BadInput(f"{where} has an entity that is not within its text.")
    return Named(text, spans)


def _strings(row: Any, field: str, where: str) -> list[str]:
    """Each text once, in their order."""
    texts = row.get(field)
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise BadInput(f"{where} has no list `{field}` of non-empty strings.")
    return list(dict.fromkeys(texts))


def _text(row: Any, where: str) -> str:
    return _string(row, "text", where)


def _string(row: Any, field: str, where: str) -> str:
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str) or not text:
        raise BadInput(f"{where} has no non-empty string `{field}`.")
    return text
