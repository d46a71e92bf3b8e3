"""Weights into a running suite, each file once, and out of it: by role alone, told, and taken up where they broke."""

import asyncio
import json

import pytest

from kit.rpc.errors import Corrupt, Denied, Invalid, NotFound, StateConflict
from sluice import AsyncClient
from sluice.client import imports
from sluice.client.imports import model_files
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.integration.uploads import fault_of
from tests.weights import folder_of

MIB = 1 << 20


@pytest.fixture
async def client(running, project):
    async with AsyncClient(running.address("registry"), running.key, project) as client:
        yield client


@pytest.fixture
async def version(client, tmp_path):
    return await client.models.import_folder("m", folder_of(tmp_path / "weights", 3 * MIB, 7), dataset="d@1")


async def told(client, version):
    """Who read which file from where on."""
    found = [
        (event.principal, json.loads(event.data_json))
        for event in await client.events("registry").list(subject=version.name, limit=0)
        if event.type == "sluice.registry.v1.model_version.downloaded"
    ]
    return [(who, data["path"], int(data.get("offset", 0))) for who, data in found]


async def test_weights_leave_under_the_role_alone_and_it_is_told_who_took_them(
    running, project, keys, client, version, tmp_path
):
    for role in (types.ROLE_ENGINEERING, types.ROLE_AUDITOR):
        async with AsyncClient(running.address("registry"), (await keys(role))[1], project) as other:
            with pytest.raises(Denied, match="needs downloader"):
                await other.models.download("m@1", tmp_path / "taken")
    assert await told(client, version) == []
    name, secret = await keys(types.ROLE_DOWNLOADER)
    async with AsyncClient(running.address("registry"), secret, project) as other:
        assert await other.models.download("m@1", tmp_path / "here") == version
        steps = []
        await other.models.download("m", tmp_path / "here", steps.append)  # all is there: nothing is asked for
    assert steps[-1].done == steps[-1].total > 3 * MIB
    for path in ("config.json", "model.safetensors"):
        assert (tmp_path / "here" / path).read_bytes() == (tmp_path / "weights" / path).read_bytes()
    assert await told(client, version) == [(name, "config.json", 0), (name, "model.safetensors", 0)]
    assert (tmp_path / "here").stat().st_mode & 0o777 == 0o700


async def test_a_download_goes_on_where_it_broke_off_and_keeps_nothing_wrong(client, version, tmp_path):
    content = (tmp_path / "weights" / "model.safetensors").read_bytes()
    folder, part = tmp_path / "here", tmp_path / "here" / "model.safetensors.part"
    folder.mkdir()
    part.write_bytes(content[: MIB + 7])
    await client.models.download("m@1", folder)
    assert (folder / "model.safetensors").read_bytes() == content and not part.exists()
    assert [at for _, path, at in await told(client, version) if path == "model.safetensors"] == [MIB + 7]

    (folder / "model.safetensors").unlink()
    part.write_bytes(b"x" * MIB)
    with pytest.raises(Corrupt, match="download it again"):
        await client.models.download("m@1", folder)
    assert not part.exists()
    (folder / "config.json").write_text("{}")
    with pytest.raises(Invalid, match="give an empty folder"):
        await client.models.download("m@1", folder)


async def imported(client, folder, model="b", **more):
    """The version, and how many bytes were sent."""
    sent = []
    version = await client.models.import_folder(model, folder, progress=sent.append, **more)
    return version, max((each.done for each in sent if each.phase == "sending"), default=0)


async def test_a_base_is_imported_by_its_id_and_no_file_is_sent_twice(client, tmp_path):
    folder = folder_of(tmp_path / "mirror" / "qwen" / "Qwen-7B", MIB)
    size = sum(file.stat().st_size for file in folder.iterdir())
    sent = []
    base = await client.models.import_base("qwen/Qwen-7B", tmp_path / "mirror", progress=sent.append)
    assert sent[-1] == ("sending", size, size)
    assert base.name.endswith("/models/qwen-qwen-7b/versions/1") and base.source_id == "qwen/Qwen-7B"
    assert base.state == registry.MODEL_VERSION_STATE_INCONCLUSIVE
    assert "imported to be trained from" in base.gate_decision.reasons[0]
    assert await imported(client, folder, "qwen-qwen-7b") == (base, 0)

    (folder / "notes.txt").write_text("more")
    other, bytes_sent = await imported(client, folder, "another", source_id="qwen/Qwen-7B")
    assert bytes_sent == 4 and len(other.artifact.files) == 3
    assert await client.models.version("qwen/Qwen-7B") == other  # the last that was imported under that id
    with pytest.raises(NotFound, match="`sluice models import qwen/Qwen-14B --from FOLDER` brings it"):
        await client.models.version("qwen/Qwen-14B")
    await client.models.download("qwen/Qwen-7B", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


async def test_an_import_that_broke_off_goes_on_after_the_last_whole_file(running, client, tmp_path, version):
    folder = folder_of(tmp_path / "other", MIB, 9)
    config, weights = (file.read_bytes() for file in model_files(folder).files.values())
    header = registry.ImportHeader(parent=f"{client.project}/models/m", artifact=await measured(folder))
    async with running.channel("registry") as channel:
        stub = registry.ModelVersionServiceStub(channel)
        parts = [{"header": header}, {"chunk": config}, {"chunk": weights[:1000]}]
        broken = stub.ImportModelVersion(iter(registry.ImportModelVersionRequest(**part) for part in parts))
        assert isinstance(await fault_of(broken), Invalid)
        header.stored_digests.extend(file.digest for file in header.artifact.files)  # one is not there
        lying = stub.ImportModelVersion(iter([registry.ImportModelVersionRequest(header=header)]))
        assert isinstance(await fault_of(lying), StateConflict)
    _, sent = await imported(client, folder, "m")
    assert sent == len(weights)


async def test_files_of_another_project_are_not_known_here(running, client, version):
    digests = [file.digest for file in version.artifact.files]
    async with running.channel("registry") as channel:
        stub = registry.ModelVersionServiceStub(channel)
        for parent, known in ((client.project, sorted(digests)), ("projects/default", [])):
            request = registry.GetStoredModelFilesRequest(parent=parent, digests=digests)
            assert list((await stub.GetStoredModelFiles(request)).digests) == known


async def measured(folder):
    return await asyncio.to_thread(imports.measure, model_files(folder), None)
