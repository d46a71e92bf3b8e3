"""Rows with two answers to one prompt, or one answer and a verdict on it, read into turns.

Read are the ways of TRL (`prompt`, `chosen`, `rejected`; `prompt`, `completion`, `label`), of ms-swift (`messages` or
`query` and `response`, with `rejected_response` or `label`) and of LLaMA-Factory (`instruction` or `conversations`,
with `chosen` and `rejected`, or `kto_tag`). Whether the turns make sense is not judged, but for answers that are equal.
"""

from sluice.rows.conventions import Turn, messages_of, prompt_of, turns_of
from sluice.rows.violations import RefusedError, Replace, missing, shape, text

REJECTED = ("rejected", "rejected_response", "rejected_messages")
VERDICTS = ("label", "kto_tag")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def pair_of(row: dict[str, object]) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Prompt, chosen and rejected of a row; RefusedError when it has no two answers."""
    name = next((name for name in REJECTED if name in row), "rejected")
    if name not in row:
        raise missing(name, row, "give each row `chosen` and `rejected`", ("prompt", "chosen"))
    worse = _answer(row[name], name)
    if "chosen" in row:
        better = _answer(row["chosen"], "chosen")
        asked = prompt_of(row) if better[0].role == "assistant" else None
        if asked is None:  # TRL's implicit prompt: both begin with it
            asked, better, worse = _parted(better, worse)
    else:
        *asked, last = turns_of(row)
        better = [last]
    if _said(better) == _said(worse):
        repair = "drop the row: it prefers nothing"
        raise RefusedError(name, "equal-answers", "another answer than the chosen one", "the same", repair)
    return asked, better, worse


def verdict_of(row: dict[str, object]) -> tuple[list[Turn], list[Turn], bool]:
    """Prompt, completion and whether it is a good one; RefusedError when there is no verdict."""
    name = next((name for name in VERDICTS if name in row), "label")
    if name not in row:
        raise missing(name, row, "give each row `label`: true or false", ("prompt", "completion"))
    good = _truth(row[name], name)
    if "completion" in row and "messages" not in row and "conversations" not in row:
        return prompt_of(row) or [], _answer(row["completion"], "completion"), good
    *asked, last = turns_of(row)
    return asked, [last], good


def _answer(value: object, field: str) -> list[Turn]:
    """A text, a message, or messages; of several texts the first (ms-swift allows more)."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value, field = value[0], f"{field}[0]"
    if isinstance(value, list):
        return messages_of(value, field)
    if isinstance(value, dict):
        key = "value" if "value" in value else "content"
        return [Turn("assistant", text(value.get(key), f"{field}.{key}"), field)]
    return [Turn("assistant", text(value, field), field)]


def _parted(better: list[Turn], worse: list[Turn]) -> tuple[list[Turn], list[Turn], list[Turn]]:
    common = 0
    while common < min(len(better), len(worse)) - 1 and better[common][:2] == worse[common][:2]:
        common += 1
    return better[:common], better[common:], worse[common:]


def _said(turns: list[Turn]) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in turns]


def _truth(value: object, field: str) -> bool:
    if isinstance(value, bool):
        return value
    meant = _TRUTH.get(str(value).strip().lower()) if isinstance(value, str | int | float) else None
    if meant is not None and isinstance(value, str | int):  # tables and CSV have no other way to say it
        return meant
    fix = Replace(meant) if meant is not None else None
    raise RefusedError(field, "wrong-type", "true or false", shape(value), f"give `{field}` as true or false", fix)
