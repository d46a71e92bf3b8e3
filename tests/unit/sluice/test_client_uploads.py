"""Uploads: whole, broken off, repeated, refused."""

import asyncio
from pathlib import Path

import pytest
import zstandard
from scripted_suite import Script

from kit.rpc.errors import Corrupt, Invalid, NotFound
from sluice import AsyncClient, Client
from sluice.client import RowsRefused
from sluice.client.acknowledged import CHUNK_BYTES
from sluice.client.chunks import chunks
from sluice.compat import DatasetHub
from sluice.dataset import v1 as dataset

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(bytes(range(256)) * (4096 * 3 + 100))  # three chunks and a bit
    return path


def send(client: Client, file: Path, **more):
    return client.datasets.upload(name="bank_intents", path=file, task_type="sft", **more)


def test_creates_the_dataset_and_sends_every_byte(client, script: Script, file):
    phases = []
    version = send(client, file, tags={"language": "zh"}, modalities=["text"], progress=phases.append)
    assert version.name == "projects/default/datasets/bank-intents/versions/1"
    assert bytes(next(iter(script.received.values()))) == file.read_bytes()
    assert script.datasets["projects/default/datasets/bank-intents"].tags["language"] == "zh"
    assert [each.phase for each in phases if each.done == each.total] == ["hashing", "sending", "checking"]


def test_goes_on_where_it_broke_off(client, script: Script, file):
    script.breaks = [2, 0]
    send(client, file)
    assert bytes(next(iter(script.received.values()))) == file.read_bytes()


def test_no_more_than_one_chunk_goes_before_it_is_told_to_be_stored(client, script: Script, tmp_path):
    """So no more than that is sent again, however much lies in buffers when the suite dies."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(bytes(range(256)) * (4096 * 21))
    script.breaks = [12]
    send(client, path)
    assert 0 < script.most_untold <= CHUNK_BYTES
    assert bytes(next(iter(script.received.values()))) == path.read_bytes()


def test_another_process_goes_on_with_the_same_upload(address, script: Script, file):
    def die(progress):
        if progress.phase == "sending" and progress.done > MIB:
            raise KeyError("the first process ends here")

    with Client(address, api_key="k") as first, pytest.raises(KeyError):
        send(first, file, progress=die)
    with Client(address, api_key="k") as second:
        send(second, file)
    assert MIB < script.starts[-1] + MIB <= file.stat().st_size  # it may have got more than the first was told
    assert len(script.uploads) == 1
    assert bytes(next(iter(script.received.values()))) == file.read_bytes()


def test_two_who_send_the_same_file_at_a_time_get_the_same_version(client, address, script: Script, file):
    others = []

    def overtake(progress):
        if progress.phase == "sending" and not others:
            others.append(None)
            with Client(address, api_key="k") as other:
                others[0] = send(other, file)

    assert send(client, file, progress=overtake) == others[0]
    assert len(script.uploads) == 1


def test_the_same_file_again_gives_the_same_version(client, script: Script, file):
    assert send(client, file) == send(client, file)
    assert len(script.uploads) == 1


def test_an_expired_upload_is_followed_by_a_fresh_one(client, script: Script, file):
    send(client, file)
    next(iter(script.uploads.values())).state = dataset.UPLOAD_STATE_EXPIRED
    assert send(client, file).version == 2
    assert len(script.uploads) == 2


def test_a_file_is_sent_again_when_the_version_that_it_made_is_damaged(client, script: Script, file):
    first = send(client, file)
    script.damaged.append(dataset.DamagedBlob(name="b", dataset_versions=[first.name]))
    assert send(client, file).version == 2
    script.damaged.clear()  # which sending it again has healed
    assert send(client, file) == first and len(script.uploads) == 2
    appended = send(client, file, append=True)
    script.damaged.append(dataset.DamagedBlob(name="b", dataset_versions=[appended.name]))
    with pytest.raises(Corrupt, match="is damaged, and appended again its rows would be there twice"):
        send(client, file, append=True)


def test_an_empty_dataset_takes_another_task_type_and_forgets_what_was_refused_by_the_first(client, script, file):
    refusal = dataset.Upload()
    refusal.violations.add(row=1, repair="add it")
    script.refusals = [refusal]
    with pytest.raises(RowsRefused):
        client.datasets.upload(name="d", path=file, task_type="pretrain")
    script.datasets["projects/default/datasets/d"].update_time.FromSeconds(9)
    assert client.datasets.upload(name="d", path=file, task_type="sft").version == 1
    assert script.datasets["projects/default/datasets/d"].task_type == "sft"


def test_refused_rows_say_row_field_and_repair(client, script: Script, file):
    refusal = dataset.Upload(violation_counts={"missing-field": 2})
    refusal.violations.add(row=7, field="messages", expected="a field", found="text", repair="add `messages`")
    script.refusals = [refusal]
    with pytest.raises(
        RowsRefused, match="wrong in 2 places, first in row 7, field `messages`: expected a field, found text; add"
    ) as error:
        send(client, file)
    assert error.value.upload.violations[0].row == 7
    assert error.value.reason_name == "INVALID_ROWS"
    with pytest.raises(RowsRefused):  # again, without sending it again
        send(client, file)
    assert len(script.uploads) == 1


def test_other_bytes_than_were_sent_are_noticed(client, script: Script, file):
    send(client, file)
    next(iter(script.versions.values())).source_digest = "sha256:" + "0" * 64
    with pytest.raises(Corrupt, match="upload the file again"):
        send(client, file)


def test_a_missing_or_empty_file_creates_nothing(client, script: Script, tmp_path):
    with pytest.raises(Invalid, match="there is no file"):
        send(client, tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(Invalid, match="is empty"):
        send(client, tmp_path / "empty.jsonl")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(NotFound, match="there is no dataset `new` yet; give the task type of its rows, such as sft"):
        client.datasets.upload(name="new", path=tmp_path / "rows.jsonl")
    assert not script.datasets


def test_another_task_type_is_refused_and_tags_are_brought_up_to_date(client, script: Script, file):
    send(client, file)
    with pytest.raises(Invalid, match="is of task type `sft`, not `pretrain`"):
        client.datasets.upload(name="bank-intents", path=file, task_type="pretrain")
    client.datasets.upload(name="bank-intents", path=file, tags={"domain": "bank"})
    assert script.datasets["projects/default/datasets/bank-intents"].tags["domain"] == "bank"


def test_the_seed_documents_way(address, file, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    dataset_id = DatasetHub().upload(
        name="medical_chest_xray_report", path=str(file), task_type="vqa", modalities=["image", "text"], description="…"
    )
    assert dataset_id == "medical-chest-xray-report"


async def test_the_asynchronous_client_does_the_same(address, script: Script, file):
    async with AsyncClient(address, api_key="k") as client:
        version = await client.datasets.upload(name="d", path=file, task_type="sft")
        script.rows = b'{"text": "a"}\n{"text": "b"}\n'
        assert [row["text"] async for row in client.datasets.read(version.name, "train")] == ["a", "b"]


async def there_is_room(end):
    """For a sender who need not wait."""


async def test_chunks_are_compressed_where_they_leave_slowly(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "p", "completion": "c"}\n' * 300_000)
    upload = dataset.Upload(name="u", size_bytes=path.stat().st_size)
    sent = []
    async for chunk in chunks(upload, path, lambda done, total: None, there_is_room):
        sent.append(chunk)
        await asyncio.sleep(0.06)  # some 17 MB a second
    as_they_are = [not chunk.compression for chunk in sent]
    assert all(as_they_are[:4]) and not any(as_they_are[4:]) and len(sent) == 11
    unpacked = [zstandard.decompress(each.data) if each.compression else each.data for each in sent]
    assert b"".join(unpacked) == path.read_bytes()
