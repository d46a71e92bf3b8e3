"""What is known of the rows of versions, asked for by their full names; `Datasets` says what each is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from kit.rpc.errors import Invalid, Unavailable
from kit.rpc.names import id_of, parent_of
from sluice.client import names
from sluice.client.connection import Connection
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types

#: Is told how many rows have been looked at.
OnRows = Callable[[types.Progress], None]


def ignore(progress: types.Progress) -> None:
    """Where nobody wants to know."""


async def statistics(connection: Connection, version: str, progress: OnRows) -> dataset.VersionStatistics:
    """What the rows are like."""
    method = dataset.DatasetProfileServiceStub(connection.channel).ReadVersionStatistics
    answers = connection.stream(method, dataset.ReadVersionStatisticsRequest(name=version))
    found: dataset.VersionStatistics = await _found(answers, "statistics", progress)
    return found


async def duplicates(connection: Connection, version: str, progress: OnRows) -> dataset.VersionDuplicates:
    """Which rows repeat others."""
    method = dataset.DatasetProfileServiceStub(connection.channel).ReadVersionDuplicates
    answers = connection.stream(method, dataset.ReadVersionDuplicatesRequest(name=version))
    found: dataset.VersionDuplicates = await _found(answers, "duplicates", progress)
    return found


async def diff(connection: Connection, base: str, version: str, progress: OnRows) -> dataset.VersionDifference:
    """Which rows only one of two versions has. Raises Invalid when they are not of one dataset."""
    if parent_of(base) != parent_of(version):
        both = f"`{names.short(base)}` and `{names.short(version)}`"
        raise Invalid(f"{both} are of two datasets; give two versions of one")
    method = dataset.DatasetProfileServiceStub(connection.channel).ReadVersionDifference
    request = dataset.ReadVersionDifferenceRequest(name=version, base=int(id_of(base)))
    found: dataset.VersionDifference = await _found(connection.stream(method, request), "difference", progress)
    return found


async def preview(pieces: AsyncIterator[memoryview]) -> list[dict[str, Any]]:
    """The rows of an Arrow IPC stream as plain values, without what is null."""
    import pyarrow as pa

    table = pa.ipc.open_stream(b"".join([piece async for piece in pieces])).read_all()
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


def page(
    title: str,
    described: dataset.VersionStatistics,
    repeated: dataset.VersionDuplicates | None = None,
    *,
    lang: str = "en",
) -> str:
    """The numbers as one HTML file with plots, in English or (`zh…`) Chinese. Raises PlotsMissingError."""
    from msgspec import convert

    from sluice.rows.profile import Duplicates, Statistics
    from sluice.rows.profile.report import report

    statistics = convert(_plain(described), Statistics, strict=False)
    duplicates = None if repeated is None else convert(_plain(repeated), Duplicates, strict=False)
    return report(statistics, title=title, duplicates=duplicates, lang=lang)


def _plain(message: dataset.VersionStatistics | dataset.VersionDuplicates) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


async def _found(answers: AsyncIterator[Any], field: str, progress: OnRows) -> Any:
    """What the last answer has; the others tell how far it is."""
    found = None
    async for answer in answers:  # to the end: the record of reads calls one broken whose end nobody hears
        if answer.WhichOneof("event") == field:
            found = getattr(answer, field)
        else:
            progress(answer.progress)
    if found is not None:
        return found
    raise Unavailable("the suite broke off before the rows were looked through; ask again")
