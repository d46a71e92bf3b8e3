"""What an upload asks of its rows beyond their schema, between the contract and `sluice.rows`; pure."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from kit.rpc.errors import Invalid, StateConflict
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows.deidentify import Policy
from sluice.rows.demands import Demands

TOKENIZER_BYTES = 64 << 20
POLICIES = {
    dataset.DEIDENTIFY_UNSPECIFIED: Policy.OFF,
    dataset.DEIDENTIFY_REPORT: Policy.REPORT,
    dataset.DEIDENTIFY_MASK: Policy.MASK,
    dataset.DEIDENTIFY_REFUSE: Policy.REFUSE,
}


def of(wanted: dataset.RowDemands) -> Demands:
    """What is asked, as rows know it; but for the tokenizer, of which only the digest is known here."""
    default = Demands()
    return Demands(
        deidentify=POLICIES[wanted.deidentify],
        recognizers=tuple(wanted.recognizers) or default.recognizers,
        keep=wanted.keep,
        set=dict(wanted.set),
        tags=dict(wanted.tags),
        max_tokens=wanted.max_tokens,
    )


def check(wanted: dataset.RowDemands, row_schema: str) -> None:
    """Raises Invalid, with column and position, for an expression that cannot be read; loads Polars where there is one.

    So it is refused before a byte of the file is sent.
    """
    asked = of(wanted)
    if asked.keep or asked.set or asked.tags:
        from sluice.rows.demands.filters import check

        check(asked, row_schema)
    if "presidio" in asked.recognizers and asked.deidentify and find_spec("presidio_analyzer") is None:
        raise Invalid("recognizer `presidio` is not installed with this suite; leave it out")
    if asked.max_tokens and find_spec("tokenizers") is None:
        raise Invalid("this suite has no `tokenizers` to count with; leave the limit of tokens out")


def at_least(wanted: dataset.RowDemands, parent: dataset.Dataset) -> dataset.RowDemands:
    """What is asked, with what the dataset asks of every upload; its policy is looked after by no less than usual."""
    whole = dataset.RowDemands()
    whole.CopyFrom(wanted)
    whole.deidentify = max(wanted.deidentify, parent.deidentify)
    if parent.deidentify and wanted.recognizers:
        whole.recognizers[:] = dict.fromkeys([*Demands().recognizers, *wanted.recognizers])
    return whole


def identified(counts: Iterable[tuple[str, str, int]]) -> list[dataset.IdentifiedCount]:
    """What identifies people in rows, most of it first."""
    ordered = sorted(counts, key=lambda each: (-each[2], each))
    return [dataset.IdentifiedCount(kind=kind, field=field, count=count) for kind, field, count in ordered]


def check_tokenizer_wanted(upload: dataset.Upload, digest: str) -> None:
    """Raises StateConflict when the upload takes no tokenizer, or another one."""
    if upload.state != dataset.UPLOAD_STATE_OPEN or not upload.demands.tokenizer:
        raise StateConflict(f"upload `{upload.name}` takes no tokenizer; announce it with a new one")
    if digest != upload.demands.tokenizer:
        raise StateConflict(
            "the tokenizer does not have the digest that was announced; send it again",
            reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
        )


def check_tokenizer(upload: dataset.Upload, stored: bool) -> None:
    """Raises StateConflict when a tokenizer was announced that has not come."""
    if upload.demands.tokenizer and not stored:
        raise StateConflict(
            "the tokenizer that was announced has not come; send it by WriteTokenizer, then commit",
            reason=errors.ERROR_REASON_SIZE_MISMATCH,
        )
