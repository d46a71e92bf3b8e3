"""Reads the rows a recipe is given; knows no tokenizer. Errors name a row's line, never its content."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from services.trainer.recipes.failures import BadInput

Message = dict[str, str]


def read_conversations(path: Path) -> list[list[Message]]:
    """The `messages` of every row; each conversation ends with an answer. Raises BadInput."""
    return _read(path, _conversation)


def read_texts(path: Path) -> list[str]:
    """The `text` of every row. Raises BadInput."""
    return _read(path, _text)


def _read(path: Path, parse: Callable[[Any, str], Any]) -> list[Any]:
    if not path.is_file():
        raise BadInput(f"The job directory has no in/{path.name}.")
    rows = [parse(row, f"in/{path.name} line {number}") for number, row in _json_lines(path)]
    if not rows:
        raise BadInput(f"in/{path.name} has no rows; give at least one.")
    return rows


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
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise BadInput(f"{where} has no list `messages`.")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise BadInput(f"{where} has a message whose role is not system, user or assistant.")
        if not isinstance(message.get("content"), str):
            raise BadInput(f"{where} has a message whose content is not text.")
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise BadInput(f"{where} does not end with an answer: the last message must be a non-empty assistant one.")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _text(row: Any, where: str) -> str:
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text:
        raise BadInput(f"{where} has no non-empty string `text`.")
    return text
