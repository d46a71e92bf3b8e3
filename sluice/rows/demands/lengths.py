"""Rows of too many tokens; what a model adds around messages (its chat template) is not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from kit.rpc.errors import Invalid
from sluice.rows.demands import Demands
from sluice.rows.demands.step import Looked, Step
from sluice.rows.profile.texts import frame_of, texts_of
from sluice.rows.violations import RefusedError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What every tokenizer of a model can encode; one that lacks its word for unknown words cannot.
PROBE = [
    "",
    " ",
    "a",
    "Hello, world! 0123456789",
    "患者发热三天。\n",
    "é\u0301 Ж 안녕 \U0001f600",
    "\x00\u200b\ufffd" * 200,
]
#: Texts that are encoded together: what a tokenizer gives for one takes many times its size.
AT_ONCE = 256


class BadTokenizer(Invalid):
    """The bytes given as a tokenizer are none, or one that cannot encode."""


def lengths(demands: Demands) -> Step:
    """The step that counts tokens. Raises Invalid where the tokenizer is none, or `tokenizers` is not installed."""
    tokenizer, most = read(demands.tokenizer), demands.max_tokens

    def step(rows: pa.Table) -> Looked:
        totals, failed = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
        for found in texts_of(frame_of(rows)):
            places, counts = found.table["row"].to_numpy(), np.array(_tokens(tokenizer, found.table["text"]), np.int64)
            failed[places[counts < 0]] = True
            np.add.at(totals, places, counts)
        wrong = {int(row): _too_long(int(totals[row]), most) for row in np.flatnonzero(totals > most)}
        return Looked(rows, wrong | {int(row): _not_encoded() for row in np.flatnonzero(failed)})

    return step


def read(content: bytes) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises Invalid where it is none or fails, or without `tokenizers`."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise Invalid("counting tokens needs the package `tokenizers`; install the extra `cpu` or `gpu`") from None
    try:
        found = Tokenizer.from_buffer(content)
        found.no_truncation()
        found.no_padding()
        _lengths(found, PROBE)
    except BaseException as error:  # the library raises no class of its own, and a panic of Rust is no Exception
        _check_failure(error)
        raise BadTokenizer(f"the tokenizer is no tokenizer.json that can be used ({type(error).__name__})") from None
    return found


def _tokens(tokenizer: Tokenizer, texts: pl.Series) -> list[int]:
    """The tokens of each text; -1 for one that the tokenizer fails on."""
    counts: list[int] = []
    for part in texts.to_frame().iter_slices(AT_ONCE):
        batch = part.to_series().to_list()
        try:
            counts += _lengths(tokenizer, batch)
        except BaseException as error:
            _check_failure(error)
            counts += [_tokens_of(tokenizer, text) for text in batch]
    return counts


def _tokens_of(tokenizer: Tokenizer, text: str) -> int:
    try:
        return _lengths(tokenizer, [text])[0]
    except BaseException as error:
        _check_failure(error)
        return -1


def _lengths(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return [len(each) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _check_failure(error: BaseException) -> None:
    """Raises what is not a failure of the tokenizer again, such as an interrupt."""
    of_tokenizer = isinstance(error, Exception) or type(error).__name__ == "PanicException"
    if not of_tokenizer or isinstance(error, MemoryError):
        raise error


def _not_encoded() -> RefusedError:
    repair = "give the tokenizer.json of the model"
    return RefusedError(
        "", "unusable-tokenizer", "a tokenizer.json that encodes every text", "a text it fails on", repair
    )


def _too_long(found: int, most: int) -> RefusedError:
    return RefusedError("", "too-many-tokens", f"at most {most} tokens", f"{found} tokens", "shorten or split the row")
