"""A file of rows into canonical rows, or what is wrong with it; where either goes is not known here."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sluice.rows.files import read_rows
from sluice.rows.schemas import SCHEMAS
from sluice.rows.violations import RefusedError, Violation

SPLITS = ("train", "validation", "test")
MAX_VIOLATIONS = 100


class _Content(Struct):
    messages: Raw | UnsetType = UNSET
    text: Raw | UnsetType = UNSET


_content_of = msgspec.json.Decoder(_Content).decode


@dataclass
class Outcome:
    """What became of a file. With any count in `counts` it is refused, and the sink holds the good rows only.

    `digest` and `size_bytes` are of what the sink got; `violations` are the first 100, `counts` all of them
    by kind.
    """

    row_count: int = 0
    split_rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    digest: str = ""
    size_bytes: int = 0
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def accepted(self) -> bool:
        """Whether no row breaks a rule."""
        return not self.counts

    def add(self, violation: Violation) -> None:
        """Count a violation, and keep it while there are few."""
        self.counts[violation.kind] += 1
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(violation)


def convert(
    source: Path | bytes,
    file_name: str,
    row_schema: str,
    sink: BinaryIO,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Write the canonical rows of a file to the sink, one a line, in the order of the file.

    `progress` gets the number of rows checked so far, after each MiB or so. Blocks: call it in a thread.
    Raises UnknownFormatError for the file's name and KeyError for the schema's, both before reading.
    """
    canonical = SCHEMAS[row_schema]
    outcome, digest, checked = Outcome(), hashlib.sha256(), 0
    for batch in read_rows(source, file_name):
        lines = []
        for entry in batch:
            if isinstance(entry, Violation):
                outcome.add(entry)
                continue
            try:
                line = canonical(entry[1])
            except RefusedError as error:
                outcome.add(error.at(entry[0]))
                continue
            outcome.split_rows[split_of(line)] += 1
            lines.append(line)
        written = b"\n".join([*lines, b""])
        sink.write(written)
        digest.update(written)
        outcome.row_count += len(lines)
        outcome.size_bytes += len(written)
        checked += len(batch)
        if progress is not None:
            progress(checked)
    if not outcome.row_count and not outcome.counts:
        outcome.add(Violation(0, "", "no-rows", "at least one row", "none", "upload a file with rows in it"))
    outcome.digest = f"sha256:{digest.hexdigest()}"
    return outcome


def split_of(canonical_row: bytes) -> str:
    """Return `train`, `validation` or `test`, in the shares 80, 10, 10.

    It follows from the content alone, not from `id` and `tags`: equal content never lands in two splits,
    whatever file or version it comes in.
    """
    content = _content_of(canonical_row)
    counted = content.text if isinstance(content.messages, UnsetType) else content.messages
    if isinstance(counted, UnsetType):
        raise ValueError("the row is not canonical; `check_row` makes it so")
    place = int.from_bytes(hashlib.blake2b(counted, digest_size=8).digest(), "big") % 100
    return "train" if place < 80 else "validation" if place < 90 else "test"


def row_digest(canonical_row: bytes) -> str:
    """Return `sha256:<hex>` of one canonical row."""
    return f"sha256:{hashlib.sha256(canonical_row).hexdigest()}"
