"""Rows as columns of token ids, made once: read where an earlier job left them, else left for a later one.

`in/tokens/SPLIT.arrow` is there where the agent found tokens of the same rows, tokenizer, template and code; what is
made anew lies in `tokens/` for it to keep, never half-written. Rows of any length are in it: what is too long is left
out afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow
from datasets import Dataset
from datasets.table import InMemoryTable
from pyarrow import ArrowInvalid, compute, ipc
from transformers import PreTrainedTokenizerBase

from services.trainer.recipes.data.conversations import Tokenized, check_any_fits, tokenize
from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.jobdir import JobDir

IDS = pyarrow.list_(pyarrow.int32())


def conversation_tokens(
    job: JobDir, split: str, tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]]
) -> pyarrow.Table:
    """`input_ids` and `labels` of each conversation of a split. Raises BadInput."""
    return made_once(
        job, split, SCHEMA, len(conversations), lambda: columns(tokenize(tokenizer, each) for each in conversations)
    )


def made_once(
    job: JobDir, split: str, schema: pyarrow.Schema, rows: int, make: Callable[[], pyarrow.Table]
) -> pyarrow.Table:
    """Columns of token ids for so many `rows` of a split: read where they lie, else what `make` gives."""
    found = _kept(job, split, schema, rows)
    if found is None:
        found = make()
        _keep(job, split, found)
    return found


def schema_of(*names: str) -> pyarrow.Schema:
    """That of columns of token ids."""
    return pyarrow.schema([(name, IDS) for name in names])


SCHEMA = schema_of("input_ids", "labels")


def columns(rows: Iterable[Tokenized]) -> pyarrow.Table:
    """A table of rows that have their tokens."""
    made = list(rows)
    arrays = [pyarrow.array([getattr(row, name) for row in made], IDS) for name in SCHEMA.names]
    return pyarrow.table(arrays, schema=SCHEMA)


def fitting(table: pyarrow.Table, max_length: int) -> tuple[pyarrow.Table, list[int]]:
    """The rows of at most `max_length` tokens and their numbers. Raises BadInput where there are rows and none fits."""
    lengths = compute.list_value_length(table["input_ids"])
    check_any_fits(lengths.to_pylist(), max_length)
    numbers = compute.indices_nonzero(compute.less_equal(lengths, max_length))
    return table.take(numbers), numbers.to_pylist()


def as_dataset(table: pyarrow.Table) -> Dataset:
    """What a trainer reads, with the length of each row for who groups by it."""
    return Dataset(InMemoryTable(table.append_column("length", compute.list_value_length(table["input_ids"]))))


def _kept(job: JobDir, split: str, schema: pyarrow.Schema, rows: int) -> pyarrow.Table | None:
    path = job.path / "in" / "tokens" / f"{split}.arrow"
    job.settings["tokens_cached"] = False
    try:
        with path.open("rb") as file:
            table = ipc.open_stream(file).read_all()
    except (OSError, ArrowInvalid):  # none there, or not whole: they are made anew
        return None
    # The key says that it is of these rows; the count costs nothing to check.
    if table.schema != schema or table.num_rows != rows:
        return None
    job.settings["tokens_cached"] = True
    return table


def _keep(job: JobDir, split: str, table: pyarrow.Table) -> None:
    if not job.leads:
        return
    folder = job.path / "tokens"
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / f"{split}.part"
    with ipc.new_stream(draft, table.schema) as stream:
        stream.write_table(table)
    draft.replace(folder / f"{split}.arrow")
