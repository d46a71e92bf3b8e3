"""Rows read out of parts: splits, ranges, columns, and the size of what goes into a message."""

import io
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from kit.rpc.errors import Invalid
from services.dataset import checks, parts
from services.dataset.reading import FIRST_BYTES, MESSAGE_BYTES, PIECE_BYTES, Wanted, arrow_stream, json_lines
from sluice.client.rows import OpenedVersion
from sluice.rows import SPLITS
from sluice.rows.checking import Rules
from sluice.rows.convert import convert
from sluice.rows.parts import part_of


class Stored:
    """Rows in as many parts as there are files."""

    def __init__(self, *files):
        self.blobs, self.rows = {}, []
        for file in files:
            convert(io.BytesIO(file), "rows.jsonl", Rules("pretrain"), self.add)

    def add(self, part):
        row = parts.new_part("u", len(self.rows), checks.Part(part.content, part.split_rows))
        self.rows.append(row)
        self.blobs[row.digest] = part.content

    async def fetch(self, digest):
        return self.blobs[digest]

    async def lines(self, wanted):
        return [piece async for piece in json_lines(self.rows, self.fetch, wanted)]

    async def texts(self, wanted):
        return [json.loads(line)["text"] for line in b"".join(await self.lines(wanted)).splitlines()]

    async def pieces(self, wanted):
        return [piece async for piece in arrow_stream(self.rows, self.fetch, wanted)]

    async def table(self, wanted):
        return pa.ipc.open_stream(b"".join(await self.pieces(wanted))).read_all()


def file(start, count, size=0):
    rows = [{"text": f"{number} {'x' * size}", "id": str(number)} for number in range(start, start + count)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def stored():
    return Stored(file(0, 40), file(40, 1), file(41, 59))


async def test_the_splits_are_the_whole(stored):
    everything = await stored.texts(Wanted())
    assert len(everything) == 100
    found = [await stored.texts(Wanted(split)) for split in SPLITS]
    assert sorted(text for texts in found for text in texts) == sorted(everything) and all(found)


@pytest.mark.parametrize("split", ["", *SPLITS])
async def test_any_range_of_rows_is_that_of_the_whole(stored, split):
    whole = await stored.texts(Wanted(split))
    for start in (0, 1, 39, 40, 41, len(whole) - 1, len(whole), 1000):
        for most in (0, 1, 3, 41, 200):
            wanted = Wanted(split, start, most)
            expected = whole[start : start + most if most else None]
            assert await stored.texts(wanted) == expected
            assert (await stored.table(wanted)).column("text").to_pylist() == expected


async def test_a_part_that_was_emptied_is_read_as_none_of_its_rows(stored):
    first = stored.rows[0]
    whole = pyarrow.parquet.read_table(io.BytesIO(stored.blobs[first.digest]))
    emptied = part_of(whole.slice(0, 0))
    none = parts.new_part("u", 0, checks.Part(emptied.content, emptied.split_rows))
    stored.blobs[none.digest] = emptied.content
    for rows in ([none], [none, stored.rows[1]], [stored.rows[1], none]):
        stored.rows = rows
        for wanted in (Wanted(), Wanted("train"), Wanted(columns=["id", "split"]), Wanted(start=1)):
            table = await stored.table(wanted)
            lines = b"".join(await stored.lines(wanted)).splitlines()
            assert len(table) == len(lines) and table.column_names


async def test_columns_are_those_asked_for_in_that_order(stored):
    assert (await stored.table(Wanted())).column_names == ["text", "id", "group", "tags"]
    table = await stored.table(Wanted("train", columns=["split", "id"], most=2))
    assert table.column_names == ["split", "id"] and set(table.column("split").to_pylist()) == {"train"}
    assert (await stored.table(Wanted(columns=["key"]))).schema.field("key").type == pa.binary(16)


async def test_a_column_that_is_not_there_is_said_so(stored):
    with pytest.raises(Invalid, match="no column `txt`; there are `text`, `id`"):
        await stored.table(Wanted(columns=["txt"]))


async def test_pieces_are_whole_lines_and_fit_into_a_message():
    stored = Stored(file(0, 40, size=200_000) + file(40, 1, size=2 << 20) + file(41, 3))
    pieces = await stored.lines(Wanted())
    assert all(piece.endswith(b"\n") for piece in pieces) and len(b"".join(pieces).splitlines()) == 44
    assert sorted(map(len, pieces))[-2] <= PIECE_BYTES and max(map(len, pieces)) < 3 << 20


async def test_the_first_batch_comes_in_small_messages_and_each_other_in_one():
    rows = Stored(file(0, 8000, size=1000))
    _, *messages, _ = map(len, await rows.pieces(Wanted()))
    small = [size for size in messages if size < 1.2 * FIRST_BYTES]
    assert 5 < len(small) < 12 and messages[: len(small)] == small
    assert all(4 * FIRST_BYTES < size <= MESSAGE_BYTES for size in messages[len(small) : -1])


def opened(pieces):
    return OpenedVersion("v", "", 0, lambda start, most: iter(pieces), lambda digests, png: iter(()), lambda: None)


async def test_a_client_reads_the_same_however_the_stream_is_cut():
    rows = Stored(file(0, 40, size=200_000) + file(40, 1, size=2 << 20) + file(41, 3))
    pieces = await rows.pieces(Wanted())
    assert 2 << 20 < max(map(len, pieces)) <= MESSAGE_BYTES
    whole = memoryview(b"".join(pieces))
    expected = pa.ipc.open_stream(whole).read_all()
    for size in (999_983, len(whole)):
        assert opened([whole[start : start + size] for start in range(0, len(whole), size)]).arrow() == expected
    assert opened(pieces).arrow() == expected


async def test_a_client_keeps_text_where_it_came_in_and_numbers_aligned():
    table = pa.table({"text": ["x" * 1000] * 1000, "number": range(1000)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    wire = memoryview(b"1234" + sink.getvalue())[4:]
    before = pa.total_allocated_bytes()
    (batch,) = opened([wire]).batches()
    assert pa.total_allocated_bytes() - before < 20_000 and batch.column("number").buffers()[1].address % 8 == 0
    assert batch == table.to_batches()[0]
