"""Datasets: uploaded, listed, read."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.rpc.encoded import content_of
from kit.rpc.errors import AlreadyExists, Invalid, NotFound
from sluice.client import assets as files
from sluice.client import criteria, feeds, names, profiles, sheets, uploads
from sluice.client.connection import Connection, gather
from sluice.client.demands import policy
from sluice.dataset import v1 as dataset
from sluice.rows.demands import NO_DEMANDS, Demands
from sluice.rows.meanings import check_meanings


def _ignore(progress: uploads.UploadProgress) -> None:
    """Where nobody wants to know."""


class Datasets:
    """``client.datasets``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._datasets = dataset.DatasetServiceStub(connection.channel)
        self._versions = dataset.DatasetVersionServiceStub(connection.channel)
        self._uploads = dataset.UploadServiceStub(connection.channel)
        self._batches = connection.channel.unary_stream(
            "/sluice.dataset.v1.DatasetVersionService/ReadRecordBatches",
            request_serializer=dataset.ReadRecordBatchesRequest.SerializeToString,
            response_deserializer=content_of(dataset.ReadRecordBatchesResponse, "ipc"),
        )

    async def upload(
        self,
        *,
        name: str,
        path: str | Path,
        task_type: str = "",
        modalities: Sequence[str] = (),
        description: str = "",
        tags: Mapping[str, str] | None = None,
        classification: str = "",
        append: bool = False,
        columns: Mapping[str, str] | None = None,
        fix: bool = False,
        quarantine: bool = False,
        demands: Demands = NO_DEMANDS,
        assets: str | Path | None = None,
        sheet: str = "",
        progress: uploads.OnProgress = _ignore,
    ) -> dataset.DatasetVersion:
        """Uploads a file as the next version of a dataset, which is created when it is new.

        ``name`` is its display name or id. The same file again gives the version it made before; an upload
        that broke off goes on where it stopped. With ``append`` the rows come after those of the newest version
        instead of taking their place. ``columns`` says what names in the file mean, such as {"findings": "prompt"};
        what is appended takes over those of the newest version where it says nothing. ``fix`` makes the repairs that
        violations propose; ``quarantine`` puts rows that are wrong aside and takes the others. ``demands`` are what is
        asked of rows beyond their schema, such as that they identify nobody. ``assets`` is the folder in which the
        images and sounds lie that rows name by path; what a dataset that you may read has already is not sent.
        ``sheet`` names another sheet of an Excel workbook than the first, which goes as a file of its own.
        The version says in ``columns_read`` and ``names_unused`` which names of the file were read, and which were not.
        ``progress`` is called as bytes are hashed and sent and rows checked. Raises RowsRefused (row, field, repair)
        when rows break the rules of the task type, Invalid for a bad file or a bad expression.
        """
        path = Path(path)
        folder = Path(assets) if assets else None
        uploads.check_file(path, folder)  # before anything is created for it
        check_meanings(columns or {})
        wanted = dataset.Dataset(
            display_name=name,
            description=description,
            task_type=task_type,
            modalities=modalities,
            tags=dict(tags or {}),
            classification=criteria.classification(classification),
        )
        wishes = uploads.Wishes(append, dict(columns or {}), fix, quarantine, demands, folder)
        with sheets.alone(path, sheet) as one:
            found = await self._ensure(wanted)
            return await uploads.Sender(self._connection, progress, wishes).send(found, one)

    async def append(self, name: str, rows: Iterable[feeds.Row], *, request_id: str = "") -> dataset.Feed:
        """Hands a few rows to a dataset: to its default feed, or to another as `chest-xray/pacs`; see ``Feeds.append``.

        Returns once they are stored. They wait in the feed until there are enough of them for a version.
        """
        return await feeds.Feeds(self._connection).append(name, rows, request_id=request_id)

    async def get(self, name: str) -> dataset.Dataset:
        """One dataset by id or display name; raises NotFound."""
        request = dataset.GetDatasetRequest(name=names.dataset(self._connection.project, name))
        answer: dataset.GetDatasetResponse = await self._connection.call(self._datasets.GetDataset, request)
        return answer.dataset

    async def list(
        self, filter: str = "", limit: int = 0, *, search: str = "", tags: Sequence[str] = ()
    ) -> builtins.list[dataset.Dataset]:
        """The datasets of the project, oldest first, such as those with ``filter='task_type = "sft"'``.

        ``search`` looks for all of its words in name, description, tags, task type and modalities; of a word that
        ends in `*` it looks for the beginning. ``tags`` are `language=zh`, or `language` for any value.
        """
        wanted = criteria.joined(filter, search, tags)
        request = dataset.ListDatasetsRequest(parent=self._connection.project, filter=wanted)
        pages = self._connection.pages(self._datasets.ListDatasets, request, lambda page: page.datasets, limit=limit)
        return await gather(pages)

    async def update(
        self,
        name: str,
        *,
        description: str | None = None,
        modalities: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        classification: str = "",
        deidentify: str | None = None,
        task_type: str = "",
        etag: str = "",
    ) -> dataset.Dataset:
        """Changes what is given of a dataset and leaves the rest; ``tags`` takes the place of all that are there.

        ``classification`` is public, internal or sensitive; ``deidentify`` is what is done at least with every upload:
        off, report, mask or refuse; ``task_type`` can be changed of an empty dataset. Raises Invalid when nothing is
        given, NotFound, StateConflict for the task type of one with versions, and Stale when ``etag`` is another
        than the present one.
        """
        given = {"description": description, "modalities": modalities, "tags": tags}
        values: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
        if classification:
            values["classification"] = criteria.classification(classification)
        if deidentify is not None:
            values["deidentify"] = policy(deidentify)
        if task_type:
            values["task_type"] = task_type
        if not values:
            raise Invalid(
                "nothing is to be changed; give a description, modalities, tags, a classification or the like"
            )
        wanted = dataset.Dataset(name=names.dataset(self._connection.project, name), etag=etag, **values)
        request = dataset.UpdateDatasetRequest(dataset=wanted)
        request.update_mask.paths.extend(values)
        answer: dataset.UpdateDatasetResponse = await self._connection.call(self._datasets.UpdateDataset, request)
        return answer.dataset

    async def delete(
        self, name: str, reason: str, *, force: bool = False, etag: str = ""
    ) -> dataset.DeleteDatasetResponse:
        """Deletes a dataset for good: its rows are shredded, its name stays taken. ``erasure`` names the tombstone.

        With ``force`` its versions are deleted with it, and uploads given up that are not complete. Raises NotFound,
        Denied unless the caller owns it or is an administrator, and StateConflict while something needs it.
        """
        request = dataset.DeleteDatasetRequest(
            name=names.dataset(self._connection.project, name), reason=reason, force=force, etag=etag
        )
        answer: dataset.DeleteDatasetResponse = await self._connection.call(self._datasets.DeleteDataset, request)
        return answer

    async def version(self, name: str) -> dataset.DatasetVersion:
        """One version: `bank-intents@3`, or the newest for `bank-intents`; raises NotFound."""
        request = dataset.GetDatasetVersionRequest(name=names.dataset_version(self._connection.project, name))
        answer: dataset.GetDatasetVersionResponse = await self._connection.call(
            self._versions.GetDatasetVersion, request
        )
        return answer.dataset_version

    async def numbered(self, version: str) -> str:
        """The resource name with the number in place of an alias."""
        name = names.dataset_version(self._connection.project, version)
        return name if name.rsplit("/", 1)[-1].isdigit() else (await self.version(name)).name

    async def versions(self, name: str, limit: int = 0) -> builtins.list[dataset.DatasetVersion]:
        """The versions of a dataset, newest first."""
        request = dataset.ListDatasetVersionsRequest(parent=names.dataset(self._connection.project, name))
        pages = self._connection.pages(
            self._versions.ListDatasetVersions, request, lambda page: page.dataset_versions, limit=limit
        )
        return await gather(pages)

    async def read(self, version: str, split: str = "", max_rows: int = 0) -> AsyncIterator[dict[str, Any]]:
        """The rows of a version, or of its split `train`, `validation` or `test`, one after the other."""
        name = await self.numbered(version)
        request = dataset.ReadDatasetVersionRequest(name=name, split=split, max_rows=max_rows)
        async for piece in self._connection.stream(self._versions.ReadDatasetVersion, request):
            for line in piece.rows.splitlines():
                yield json.loads(line)

    async def upload_of(self, version: str) -> dataset.Upload:
        """The upload that a version was made of: what was repaired in it and put aside."""
        found = await self.version(version)
        answer: dataset.GetUploadResponse = await self._connection.call(
            self._uploads.GetUpload, dataset.GetUploadRequest(name=found.upload)
        )
        return answer.upload

    async def quarantine(self, version: str) -> AsyncIterator[bytes]:
        """The rows that were put aside when the version was made: pieces of JSON lines that say what is wrong."""
        request = dataset.ReadQuarantineRequest(name=(await self.version(version)).upload)
        async for piece in self._connection.stream(self._uploads.ReadQuarantine, request):
            yield piece.rows

    async def arrow_pieces(
        self, version: str, split: str = "", columns: Sequence[str] = (), start_row: int = 0, max_rows: int = 0
    ) -> AsyncIterator[memoryview]:
        """Rows of a version as the bytes of one Arrow IPC stream; ``start_row`` counts from 0 within the split.

        Raises Invalid for a column that is not there.
        """
        request = dataset.ReadRecordBatchesRequest(
            name=await self.numbered(version), split=split, columns=columns, start_row=start_row, max_rows=max_rows
        )
        async for piece in self._connection.stream(self._batches, request):
            yield piece

    async def asset(self, version: str, digest: str, *, png: bool = False, frame: int = 0) -> bytes:
        """The bytes of an image or a sound that rows of a version name, as they came or, with ``png``, as PNG.

        A DICOM file becomes PNG as a viewer shows it at first; of one with several, ``frame`` (from 0) is shown.
        Raises NotFound when no row of the version names it, Invalid when it cannot be shown.
        """
        name = await self.numbered(version)
        found = [content async for _, content in files.read(self._connection, name, [digest], png=png, frame=frame)]
        if found:
            return found[0]
        raise NotFound(f"no row of `{name}` names the asset `{digest}`", resource=("Asset", digest))

    async def asset_contents(self, version: str, digests: Sequence[str], *, png: bool = False) -> AsyncIterator[bytes]:
        """The same for many, in the order of the digests, in few calls."""
        async for _, content in files.read(self._connection, await self.numbered(version), digests, png=png):
            yield content

    async def assets(self, version: str, limit: int = 0) -> builtins.list[dataset.Asset]:
        """What is known of the images and sounds that rows of a version name, by digest: type, bytes, pixels."""
        return await gather(files.list_of(self._connection, await self.numbered(version), limit))

    async def statistics(
        self, version: str, *, progress: profiles.OnRows = profiles.ignore
    ) -> dataset.VersionStatistics:
        """What the rows of `bank-intents@3` are like: splits, lengths, labels, languages, images; never what they say.

        The first to ask waits, and ``progress`` is called as rows are looked at. Raises NotFound, and Exhausted
        (LIMIT_EXCEEDED) for a version that is too large.
        """
        return await profiles.statistics(self._connection, await self.numbered(version), progress)

    async def duplicates(
        self, version: str, *, progress: profiles.OnRows = profiles.ignore
    ) -> dataset.VersionDuplicates:
        """Which rows of a version say the same as others, or nearly so, and which held-out rows are in train as well.

        Rows are told by number, from 1. Waits and raises as ``statistics``.
        """
        return await profiles.duplicates(self._connection, await self.numbered(version), progress)

    async def diff(
        self, base: str, version: str, *, progress: profiles.OnRows = profiles.ignore
    ) -> dataset.VersionDifference:
        """Which rows `bank-intents@2` has beyond those of `bank-intents@1`, which comes first, and which it lacks.

        Rows are told by number, from 1, and count as often as they are there. Waits and raises as ``statistics``,
        and Invalid for versions of two datasets.
        """
        return await profiles.diff(self._connection, await self.numbered(base), await self.numbered(version), progress)

    async def preview(
        self, version: str, rows: int = 5, *, split: str = "", start: int = 1
    ) -> builtins.list[dict[str, Any]]:
        """Some rows as they are stored, without what is null; ``start`` counts from 1, within the split if given."""
        if rows < 1 or start < 1:
            raise Invalid("rows are counted from 1; give a number of rows and a first row of 1 or more")
        return await profiles.preview(self.arrow_pieces(version, split, (), start - 1, rows))

    async def _ensure(self, wanted: dataset.Dataset) -> dataset.Dataset:
        """The dataset of that name, made or brought up to date."""
        try:
            found = await self.get(wanted.display_name)
        except NotFound:
            if not wanted.task_type:
                raise NotFound(
                    f"there is no dataset `{wanted.display_name}` yet; give the task type of its rows, such as sft",
                    resource=("Dataset", names.dataset(self._connection.project, wanted.display_name)),
                ) from None
            return await self._create(wanted)
        retyped = bool(wanted.task_type) and wanted.task_type != found.task_type
        if retyped and found.latest_version:
            raise Invalid(
                f"dataset `{names.short(found.name)}` is of task type `{found.task_type}`,"
                f" not `{wanted.task_type}`; upload under another name, or leave the task type out"
            )
        fields = ("description", "modalities", "tags", "classification")
        changed = [
            field for field in fields if getattr(wanted, field) and getattr(wanted, field) != getattr(found, field)
        ]
        changed += ["task_type"] if retyped else []  # the suite refuses where something is in it all the same
        if not changed:
            return found
        wanted.name, wanted.display_name = found.name, found.display_name
        wanted.task_type = wanted.task_type or found.task_type
        request = dataset.UpdateDatasetRequest(dataset=wanted)
        request.update_mask.paths.extend(changed)
        answer: dataset.UpdateDatasetResponse = await self._connection.call(self._datasets.UpdateDataset, request)
        return answer.dataset

    async def _create(self, wanted: dataset.Dataset) -> dataset.Dataset:
        request = dataset.CreateDatasetRequest(parent=self._connection.project, dataset=wanted)
        try:
            answer: dataset.CreateDatasetResponse = await self._connection.call(self._datasets.CreateDataset, request)
            return answer.dataset
        except AlreadyExists:  # another process was quicker
            return await self.get(wanted.display_name)
