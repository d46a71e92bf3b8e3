"""What is asked of rows beyond their schema, as options of the command line."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sluice.rows.demands import Demands


class Deidentify(Enum):
    """What is done about text that identifies people."""

    off = "off"
    report = "report"
    mask = "mask"
    refuse = "refuse"


class Recognizer(Enum):
    """Who looks for it."""

    cued = "cued"
    numbers = "numbers"
    presidio = "presidio"


Identity = Annotated[
    Deidentify,
    typer.Option("--deidentify", help="What is done about text that identifies people: counted, masked, or refused."),
]
Recognizers = Annotated[
    list[Recognizer] | None,
    typer.Option(
        "--recognizer",
        help="Who looks for it: cued and numbers, or only the one named; presidio adds to both. Repeatable.",
    ),
]
Keep = Annotated[
    str, typer.Option("--keep", metavar="EXPR", help="Take only rows for which it is true: 'length(answer) > 20'.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="COLUMN=EXPR", help='Give label, id or group a value: "label=case when … end"; repeatable.'
    ),
]
TagRows = Annotated[
    list[str] | None,
    typer.Option("--tag-rows", metavar="TAG=EXPR", help="Tag rows: \"urgent=prompt like '%急诊%'\"; repeatable."),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=0, help="Refuse rows of more tokens; 0 means any number.")]
Tokenizer = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="PATH", help="A tokenizer.json, or the folder of a model with one."),
]


def demands(
    deidentify: Deidentify,
    recognizers: list[Recognizer] | None,
    keep: str,
    set: list[str] | None,
    tag_rows: list[str] | None,
    max_tokens: int,
    tokenizer: Path | None,
) -> Demands:
    """The options as what is asked. Raises Invalid for what cannot be."""
    from kit.rpc.errors import Invalid
    from sluice.rows.demands import Demands

    default = Demands()
    if bool(max_tokens) != bool(tokenizer):
        raise Invalid("a limit of tokens needs both: --max-tokens and the --tokenizer that counts them")
    return Demands(
        deidentify="" if deidentify is Deidentify.off else deidentify.value,
        recognizers=tuple(each.value for each in recognizers or []) or default.recognizers,
        keep=keep,
        set=_pairs(set or [], "label=case when text like '%x%' then 'x' end"),
        tags=_pairs(tag_rows or [], "long=length(answer) > 500"),
        max_tokens=max_tokens,
        tokenizer=_read(tokenizer) if tokenizer else b"",
    )


def _pairs(given: list[str], example: str) -> dict[str, str]:
    from kit.rpc.errors import Invalid

    for each in given:
        if not all(part.strip() for part in each.partition("=")):
            raise Invalid(f'`{each}` gives nothing a value; write NAME=EXPR, such as "{example}"')
    return {name.strip(): value.strip() for name, _, value in (each.partition("=") for each in given)}


def _read(path: Path) -> bytes:
    from kit.rpc.errors import Invalid

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise Invalid(f"there is no `{file}`; give a tokenizer.json, or the folder of a model with one")
    return file.read_bytes()
