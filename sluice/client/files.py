"""YAML files with the fields of a message of the contract; it knows no message and asks no suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from kit.rpc.errors import Invalid

MessageT = TypeVar("MessageT", bound=Message)


def read(path: Path, message: MessageT) -> MessageT:
    """Fills a message from a file. Raises Invalid naming the file and the field."""
    return parse(path, fields(path, message.DESCRIPTOR.name), message)


def fields(path: Path, kind: str) -> dict[str, Any]:
    """What stands in a file at the top. Raises Invalid naming the file and the ``kind`` of message it should hold."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Invalid(f"there is no file `{path}`; give a {kind} as YAML") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Invalid(f"`{path}` is no YAML ({str(error).splitlines()[0]}); repair it") from error
    if not isinstance(found, dict):
        raise Invalid(f"`{path}` holds no fields; give a {kind} as YAML, lines such as `field: value`")
    return {str(key): value for key, value in found.items()}


def parse(path: Path, values: dict[str, Any], message: MessageT) -> MessageT:
    """Puts the fields of a file into a message. Raises Invalid naming the file and the field."""
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        return ParseDict(values, message)
    except ParseError as error:
        raise Invalid(f"`{path}`: {error}; the fields are those of {message.DESCRIPTOR.name}") from error
