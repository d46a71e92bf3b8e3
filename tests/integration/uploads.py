"""How tests send a file to the dataset service, whole or with something wrong about it."""

import hashlib
import json
import uuid
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kit.rpc.errors import Fault, from_rpc_error
from sluice.dataset import v1 as dataset

CHUNK = 1 << 20
OVER = (dataset.UPLOAD_STATE_COMMITTED, dataset.UPLOAD_STATE_FAILED, dataset.UPLOAD_STATE_EXPIRED)


def jsonl(count: int, size: int = 0, mark: str = "") -> bytes:
    """So many rows for `sft`, each with an answer of at least `size` characters."""
    return b"".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"question {mark} {number}"},
                    {"role": "assistant", "content": f"answer {number} " + "x" * size},
                ]
            }
        ).encode()
        + b"\n"
        for number in range(count)
    )


async def fault_of(call: Any) -> Fault:
    """The fault that a call ends in."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError("the call went well")


def chunks(name: str, content: bytes, start: int = 0, size: int = CHUNK) -> list[dataset.WriteUploadRequest]:
    """The chunks of a file from a byte on."""
    parts = [(at, content[at : at + size]) for at in range(start, len(content), size)]
    return [dataset.WriteUploadRequest(name=name, offset=at, data=part, crc32=zlib.crc32(part)) for at, part in parts]


class Uploads:
    """One dataset in a project and uploads to it."""

    def __init__(self, channel: grpc.aio.Channel, project: str) -> None:
        self.project = project
        self.datasets = dataset.DatasetServiceStub(channel)
        self.uploads = dataset.UploadServiceStub(channel)
        self.versions = dataset.DatasetVersionServiceStub(channel)

    async def create(self, name: str = "d", **fields: Any) -> dataset.Dataset:
        """Creates a dataset for `sft`."""
        wanted = dataset.Dataset(display_name=name, task_type="sft")
        request = dataset.CreateDatasetRequest(parent=self.project, dataset=wanted, **fields)
        return (await self.datasets.CreateDataset(request)).dataset

    async def open(self, content: bytes, file_name: str = "rows.jsonl", **wrong: Any) -> dataset.Upload:
        """Announces a file; `wrong` replaces what is said of it."""
        said = {"size_bytes": len(content), "digest": f"sha256:{hashlib.sha256(content).hexdigest()}"} | wrong
        request = dataset.CreateUploadRequest(parent=f"{self.project}/datasets/d", file_name=file_name, **said)
        request.request_id = request.request_id or str(uuid.uuid4())
        return (await self.uploads.CreateUpload(request)).upload

    async def write(self, *parts: dataset.WriteUploadRequest) -> dataset.Upload:
        """Sends chunks in one stream."""

        async def stream() -> AsyncIterator[dataset.WriteUploadRequest]:
            for part in parts:
                yield part

        return (await self.uploads.WriteUpload(stream())).upload

    async def commit(self, name: str) -> dataset.Upload:
        """Commits and waits for the end of the checks."""
        await self.uploads.CommitUpload(dataset.CommitUploadRequest(name=name))
        return await self.end(name)

    async def end(self, name: str) -> dataset.Upload:
        """The upload when it is over."""
        upload = dataset.Upload()
        async for answer in self.uploads.WatchUpload(dataset.WatchUploadRequest(name=name), timeout=30):
            upload = answer.upload
        assert upload.state in OVER
        return upload

    async def send(self, content: bytes, file_name: str = "rows.jsonl", **wrong: Any) -> dataset.Upload:
        """The whole way of a file."""
        upload = await self.open(content, file_name, **wrong)
        await self.write(*chunks(upload.name, content))
        return await self.commit(upload.name)

    async def read(self, version: str, split: str = "", max_rows: int = 0) -> bytes:
        """The rows of a version."""
        request = dataset.ReadDatasetVersionRequest(name=version, split=split, max_rows=max_rows)
        return b"".join([answer.rows async for answer in self.versions.ReadDatasetVersion(request)])
