"""Datasets: uploaded, listed, read."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.rpc.errors import AlreadyExists, Invalid, NotFound
from sluice.client import names, uploads
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

    async def upload(
        self,
        *,
        name: str,
        path: str | Path,
        task_type: str = "",
        modalities: Sequence[str] = (),
        description: str = "",
        tags: Mapping[str, str] | None = None,
        progress: uploads.OnProgress = _ignore,
    ) -> dataset.DatasetVersion:
        """Uploads a file as the next version of a dataset, which is created when it is new.

        ``name`` is its display name or id. The same file again gives the version it made before; an upload
        that broke off goes on where it stopped. ``progress`` is called as bytes are hashed and sent and rows
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
        )
        found = await self._ensure(wanted)
        return await uploads.Sender(self._connection, progress).send(found.name, path)

    async def get(self, name: str) -> dataset.Dataset:
        """One dataset by id or display name; raises NotFound."""
        request = dataset.GetDatasetRequest(name=names.dataset(self._connection.project, name))
        answer: dataset.GetDatasetResponse = await self._connection.call(self._datasets.GetDataset, request)
        return answer.dataset

    async def list(self, filter: str = "", limit: int = 0) -> builtins.list[dataset.Dataset]:
        """The datasets of the project by name, such as those with ``filter='task_type = "sft"'``."""
        request = dataset.ListDatasetsRequest(parent=self._connection.project, filter=filter)
        pages = self._connection.pages(self._datasets.ListDatasets, request, lambda page: page.datasets, limit=limit)
        return await gather(pages)

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
        name = names.dataset_version(self._connection.project, version)
        if name.endswith("/latest"):
            name = (await self.version(name)).name
        request = dataset.ReadDatasetVersionRequest(name=name, split=split, max_rows=max_rows)
        async for piece in self._connection.stream(self._versions.ReadDatasetVersion, request):
            for line in piece.rows.splitlines():
                yield json.loads(line)

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
        fields = ("description", "modalities", "tags")
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
