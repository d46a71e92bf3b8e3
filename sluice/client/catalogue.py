"""Public datasets: what the catalogue has, and a copy on this machine as a dataset of the suite; downloads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from kit.rpc.errors import NotFound
from sluice.catalogue import Entry, find, search
from sluice.client import datasets, uploads
from sluice.dataset import v1 as dataset


class Registered(NamedTuple):
    """The version that was made, the split of the original that it is, and rows that were incomplete and left out."""

    version: dataset.DatasetVersion
    split: str
    rows_left_out: int


def _ignore(done: object) -> None:
    """Where nobody wants to know."""


class Catalogue:
    """``client.catalogue``. ``find`` and ``search``, which without words gives all entries, ask no suite."""

    find = staticmethod(find)
    search = staticmethod(search)

    def __init__(self, datasets: datasets.Datasets) -> None:
        self._datasets = datasets

    async def register(
        self,
        id: str,
        folder: str | Path,
        *,
        name: str = "",
        split: str = "",
        limit: int = 0,
        mapped: Callable[[int], None] = _ignore,
        progress: uploads.OnProgress = _ignore,
    ) -> Registered:
        """Uploads a public dataset of which ``folder`` holds a copy: its rows become those of the entry's task type.

        Without ``split`` it is the first that is there; ``name`` is by default the id, with the split unless it is the
        entry's first. ``limit`` ends it after so many rows, 0 means all. ``mapped`` is called with the rows mapped so
        far, ``progress`` as ``Datasets.upload`` does. Raises NotFound for an id or a split that there is not, Invalid
        for a folder that lacks the files or has others, and what ``Datasets.upload`` does.
        """
        from sluice.catalogue import mirror
        from sluice.catalogue.canonical import write

        entry = find(id)
        found = await asyncio.to_thread(mirror.find, entry, Path(folder).expanduser(), split)
        name = name or named(entry, found.split)
        with TemporaryDirectory(prefix="sluice-register-") as place:
            path = Path(place) / f"{entry.id}.jsonl.zst"
            written = await asyncio.to_thread(write, entry, found, path, limit, mapped)
            try:
                known = await self._datasets.get(name)
            except NotFound:
                known = dataset.Dataset()  # the upload makes it
            beside = found.root if found.layout.media == "files" else None
            said = said_of(entry, known)
            version = await self._datasets.upload(name=name, path=path, assets=beside, progress=progress, **said)
        return Registered(version, found.split, written.left_out)


def named(entry: Entry, split: str) -> str:
    """What a dataset of a split is called: as the entry, with the split unless it is the first."""
    return entry.id if split == entry.splits[0] else f"{entry.id}-{split.replace('_', '-')}"


def said_of(entry: Entry, known: dataset.Dataset) -> dict[str, Any]:
    """What is said of the dataset; what people have said of one that is ``known`` stays."""
    tags = {"catalogue": entry.id, "language": ",".join(entry.languages), "licence": entry.licence}
    return {
        "task_type": entry.task_type,
        "modalities": entry.modalities,
        "description": known.description or entry.description,
        "tags": {**known.tags, **tags},
        "classification": "sensitive" if entry.access == "credentialed" else "",
    }
