"""What is asked of rows beyond their schema, as the contract says it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kit.rpc.errors import Invalid
from sluice.dataset import v1 as dataset
from sluice.rows.demands import Demands

POLICIES = {
    "": dataset.DEIDENTIFY_UNSPECIFIED,
    "off": dataset.DEIDENTIFY_UNSPECIFIED,
    "report": dataset.DEIDENTIFY_REPORT,
    "mask": dataset.DEIDENTIFY_MASK,
    "refuse": dataset.DEIDENTIFY_REFUSE,
}
_PIECE_BYTES = 1 << 20


def policy(word: str) -> dataset.Deidentify:
    """A policy by its word. Raises Invalid for one that there is not."""
    if word not in POLICIES:
        raise Invalid(f"`{word}` is no policy of de-identification; there are off, report, mask and refuse")
    return POLICIES[word]


def message(asked: Demands) -> dataset.RowDemands:
    """The message of what is asked. Raises Invalid for a policy that there is not."""
    return dataset.RowDemands(
        deidentify=policy(asked.deidentify),
        recognizers=asked.recognizers if asked.recognizers != Demands().recognizers else (),
        keep=asked.keep,
        set=asked.set,
        tags=asked.tags,
        max_tokens=asked.max_tokens,
        tokenizer=f"sha256:{hashlib.sha256(asked.tokenizer).hexdigest()}" if asked.tokenizer else "",
    )


def tokenizer_pieces(upload: str, tokenizer: bytes) -> Iterator[dataset.WriteTokenizerRequest]:
    """A tokenizer.json in pieces, of which the first names the upload."""
    for start in range(0, len(tokenizer), _PIECE_BYTES):
        piece = tokenizer[start : start + _PIECE_BYTES]
        yield dataset.WriteTokenizerRequest(name="" if start else upload, data=piece)
