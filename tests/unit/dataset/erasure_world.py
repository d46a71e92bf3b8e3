"""What an erasure is tried on: uploads, versions and erasures on a database and real encrypted files."""

import hashlib
import json
import uuid
import zlib
from collections.abc import AsyncIterator

from kit.auth import Principal
from kit.blobs import FileKek, open_store
from kit.rpc.call import Call, acting
from services.dataset import commands, store
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.erasing import PredicateStore
from services.dataset.servicer import DatasetVersionServicer, ErasureServicer, UploadServicer
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types

PROJECT = "projects/p"
PARENT = f"{PROJECT}/datasets/d"
ADMIN = Principal("projects/p/apiKeys/admin", frozenset({(PROJECT, int(types.ROLE_ADMIN))}))


def rows(*groups, mark=""):
    """A row for each group, in JSON lines."""
    return b"".join(
        json.dumps({"id": f"{mark}{number}", "group": group, "text": f"text {mark} {number} of {group}"}).encode()
        + b"\n"
        for number, group in enumerate(groups)
    )


class World:
    def __init__(self, database, folder, spare):
        self.database, self.folder = database, folder
        kek = folder / "kek"
        opened = FileKek.load(kek, home=folder / "home") if kek.exists() else FileKek.create(kek, home=folder / "home")
        self.blobs = open_store(f"file://{folder / 'blobs'}", opened)
        self.spare = spare
        self.supervisor = UploadSupervisor(database, self.blobs, self.spare, recent := Recent())
        self.uploads = UploadServicer(database, self.blobs, self.spare, recent)
        self.versions = DatasetVersionServicer(database, self.blobs)
        self.erasures = ErasureServicer(database, PredicateStore(database, self.blobs))

    async def dataset(self, name="d"):
        wanted = dataset.Dataset(display_name=name, task_type="pretrain")
        await self.database.transact(lambda unit: commands.create_dataset(unit, PROJECT, wanted))

    async def upload(self, content, parent=PARENT, look=True, begun=None, **wishes):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        request = dataset.CreateUploadRequest(
            parent=parent, file_name="a.jsonl", size_bytes=len(content), digest=digest, **wishes
        )
        upload = begun or await self.database.transact(lambda unit: commands.create_upload(unit, request, "me"))

        async def chunks() -> AsyncIterator[dataset.WriteUploadRequest]:
            yield dataset.WriteUploadRequest(name=upload.name, data=content, crc32=zlib.crc32(content))

        await self.uploads.WriteUpload(chunks(), None)
        await self.database.transact(lambda unit: commands.commit_upload(unit, upload.name))
        if look:
            await self.look()
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, upload.name)

    async def look(self):
        await self.supervisor.step()
        await self.supervisor.settle()
        await self.supervisor.erasures.settle()
        await self.supervisor.tidy()

    async def order(self, column="group", *values, parent=PARENT, **wishes):
        request = dataset.CreateErasureRequest(
            parent=parent, column=column, values=values, reason="asked to", request_id=str(uuid.uuid4()), **wishes
        )
        with acting(Call(ADMIN, "/CreateErasure")):
            return (await self.erasures.CreateErasure(request, None)).erasure.name

    async def forget(self, *values, column="group", **wishes):
        name = await self.order(column, *values, **wishes)
        await self.look()
        return await self.erasure(name)

    async def erasure(self, name):
        return (await self.erasures.GetErasure(dataset.GetErasureRequest(name=name), None)).erasure

    async def version(self, number, parent=PARENT):
        async with self.database.read() as session:
            return await store.get_version(session, f"{parent}/versions/{number}")

    async def read(self, number, parent=PARENT, **wanted):
        request = dataset.ReadDatasetVersionRequest(name=f"{parent}/versions/{number}", **wanted)
        answers = [answer.rows async for answer in self.versions.ReadDatasetVersion(request, None)]
        return [json.loads(line) for line in b"".join(answers).splitlines()]

    async def groups(self, number, parent=PARENT):
        return [row["group"] for row in await self.read(number, parent)]

    async def stored(self):
        async with self.database.read() as session:
            return await erasures.stored_parts(session, PARENT)

    def again(self):
        """The same after a restart of the service."""
        return World(self.database, self.folder, self.spare)

    def files(self):
        return sorted(path for path in (self.folder / "blobs").rglob("*") if path.is_file())
