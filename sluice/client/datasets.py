"""Datasets: uploaded, listed, read."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.rpc.errors import AlreadyExists, Invalid, NotFound
from sluice.client import criteria, names, uploads
from sluice.client.connection import Connection, gather
from sluice.dataset import v1 as dataset


def _ignore(progress: uploads.UploadProgress) -> None:
    """Where nobody wants to know."""


class Datasets:
    """``client.datasets``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._datasets = dataset.DatasetServiceStub(connection.channel)
        self._versions = dataset.DatasetVersionServiceStub(connection.channel)
        self._uploads = dataset.UploadServiceStub(connection.channel)

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
        progress: uploads.OnProgress = _ignore,
    ) -> dataset.DatasetVersion:
        """Uploads a file as the next version of a dataset, which is created when it is new.

        ``name`` is its display name or id. The same file again gives the version it made before; an upload
        that broke off goes on where it stopped. With ``append`` the rows come after those of the newest version
        instead of taking their place. ``columns`` says what names in the file mean, such as {"findings": "prompt"};
        ``fix`` makes the repairs that violations propose; ``quarantine`` puts rows that are wrong aside and takes
        the others. ``progress`` is called as bytes are hashed and sent and rows
        checked. Raises RowsRefused (row, field, repair) when rows break the rules of the task type, Invalid
        for a bad file.
        """
        path = Path(path)
        uploads.check_file(path)  # before anything is created for it
        wanted = dataset.Dataset(
            display_name=name,
            description=description,
            task_type=task_type,
            modalities=modalities,
            tags=dict(tags or {}),
            classification=criteria.classification(classification),
        )
        found = await self._ensure(wanted)
        wishes = uploads.Wishes(append, dict(columns or {}), fix, quarantine)
        return await uploads.Sender(self._connection, progress, wishes).send(found.name, path)

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
        etag: str = "",
    ) -> dataset.Dataset:
        """Changes what is given of a dataset and leaves the rest; ``tags`` takes the place of all that are there.

        ``classification`` is public, internal or sensitive. Raises Invalid when nothing is given, NotFound, and
        Stale when ``etag`` is not the present one.
        """
        given = {"description": description, "modalities": modalities, "tags": tags}
        values: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
        if classification:
            values["classification"] = criteria.classification(classification)
        if not values:
            raise Invalid("nothing is to be changed; give a description, modalities, tags or a classification")
        wanted = dataset.Dataset(name=names.dataset(self._connection.project, name), etag=etag, **values)
        request = dataset.UpdateDatasetRequest(dataset=wanted)
        request.update_mask.paths.extend(values)
        answer: dataset.UpdateDatasetResponse = await self._connection.call(self._datasets.UpdateDataset, request)
        return answer.dataset

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
    ) -> AsyncIterator[bytes]:
        """Rows of a version as the bytes of one Arrow IPC stream; ``start_row`` counts from 0 within the split.

        Raises Invalid for a column that is not there.
        """
        request = dataset.ReadRecordBatchesRequest(
            name=await self.numbered(version), split=split, columns=columns, start_row=start_row, max_rows=max_rows
        )
        async for piece in self._connection.stream(self._versions.ReadRecordBatches, request):
            yield piece.ipc

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
        if wanted.task_type and wanted.task_type != found.task_type:
            raise Invalid(
                f"dataset `{names.short(found.name)}` is of task type `{found.task_type}`,"
                f" not `{wanted.task_type}`; upload under another name, or leave the task type out"
            )
        fields = ("description", "modalities", "tags", "classification")
        changed = [
            field for field in fields if getattr(wanted, field) and getattr(wanted, field) != getattr(found, field)
        ]
        if not changed:
            return found
        wanted.name, wanted.display_name, wanted.task_type = found.name, found.display_name, found.task_type
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
