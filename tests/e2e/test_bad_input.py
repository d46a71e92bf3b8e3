"""What a person gets who asks for something wrong: one sentence with the fix, a code, and nothing is lost or made."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import uuid

import grpc
import pytest
from grpc_status import rpc_status

from kit.rpc.errors import StateConflict, from_rpc_error
from sluice.cli import exits
from sluice.cli import run as sluice
from sluice.client.uploads import UPLOADS
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from tests.integration.uploads import CHUNK, Uploads, chunks, jsonl
from tests.pipeline import ENDPOINT, row, until
from tests.suite import suite


@pytest.fixture
def user(running, monkeypatch, capsys):
    """The command line as somebody with the administrator's key: `code, sentence = user("jobs", "list")`."""
    monkeypatch.setenv("SLUICE_ADDRESS", running.suite.state["address"])
    monkeypatch.setenv("SLUICE_HTTP", running.suite.state["http"])
    monkeypatch.setenv("SLUICE_API_KEY", running.suite.key)

    def call(*arguments, key=""):
        with monkeypatch.context() as patched:
            if key:
                patched.setenv("SLUICE_API_KEY", key)
            code = sluice(arguments)
        said = capsys.readouterr().err
        errors_said = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in said and len(errors_said) == (code != 0), said
        return code, said

    return call


def rows_file(folder, name="rows.jsonl", count=20, **replaced):
    """Rows for `sft`, some lines of them others: `rows_file(tmp_path, line_7="{")`."""
    lines = [json.dumps(row("sft", number)) for number in range(count)]
    for at, text in replaced.items():
        lines[int(at.removeprefix("line_")) - 1] = text
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("count", "wrong", "sentence"),
    [
        (10_000, {"line_7": '{"messages": [{"role": "us'}, "wrong in row 7: expected one JSON object, found JSON that"),
        (20, {"line_3": '{"prompt": "p", "completon": "c"}'}, "row 3, field `completion`: expected a field"),
        (20, {"line_1": '{"messages": [{"role": "usr", "content": "c"}]}'}, "found another word; perhaps `user`?"),
    ],
    ids=["line 7 of 10 000", "wrong field", "wrong role"],
)
def test_rows_that_are_wrong_are_named_and_make_no_version(user, running, tmp_path, count, wrong, sentence):
    name = f"refused-{uuid.uuid4().hex[:8]}"
    code, said = user("dataset", "upload", rows_file(tmp_path, f"{name}.jsonl", count, **wrong), "--task-type", "sft")
    assert code == exits.INVALID and sentence in said
    assert running.client.datasets.get(name).latest_version == 0
    assert user("dataset", "upload", rows_file(tmp_path, f"{name}.jsonl"), "--task-type", "sft")[0] == exits.OK


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("dataset upload {tmp}/none.jsonl --task-type sft", 2, "there is no file `{tmp}/none.jsonl`; give the path"),
        ("dataset upload {tmp}/empty.jsonl --task-type sft", 2, "is empty; a dataset needs at least one row"),
        ("dataset upload {tmp}/rows.doc --task-type sft", 2, "is of no known format; give .jsonl, .ndjson, .json"),
        ("dataset upload {tmp}/new.jsonl --task-type stf", 2, "`stf` is not known; it is one of `asr`, `audio-qa`"),
        ("dataset upload {tmp}/new.jsonl", 3, "no dataset `new` yet; give the task type of its rows, such as sft"),
        ("dataset show nope@1", 3, "does not exist; `sluice dataset list` shows what there is"),
        ("train --dataset rows --model m --base base@1 --task-type triage", 3, "`triage` does not exist; it is one of"),
        ("train --dataset text --model m --base base@1 --task-type sft", 2, "has rows for `pretrain`"),
        ("train --dataset rows --model m --base base@9", 3, "does not exist; `sluice models versions` shows what"),
        ("train --dataset rows --model m", 2, "base_model_version is empty; name the model version to start from"),
        ("models import b {tmp}/none --dataset rows@1", 2, "no folder `{tmp}/none`; give the one with config.json"),
        ("models import b {tmp} --dataset rows@1", 2, "has neither config.json nor adapter_config.json"),
        ("models import qwen/Qwen-7B --from {tmp}", 3, "has no `qwen/Qwen-7B`; it was looked for as qwen/Qwen-7B/"),
        ("models import b", 2, "say where the weights lie: a FOLDER after the model, or a mirror with --from"),
        ("train --dataset rows --model m --base qwen/Qwen-7B", 3, "nothing was imported as `qwen/Qwen-7B`; `sluice mo"),
        ("jobs show 0000", 3, "there is no training job `0000`"),
        ("chat nobody hello", 3, "`nobody` does not exist or is not yours"),
    ],
)
def test_what_is_not_there_is_named(user, tmp_path, arguments, code, sentence):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "rows.doc").write_text("a,b\n")
    rows_file(tmp_path, "new.jsonl")
    given = [each.format(tmp=tmp_path) for each in arguments.split(" ")]
    found, said = user(*given)
    assert found == code and sentence.format(tmp=tmp_path) in said, said


def test_keys_roles_and_projects(user, running, tmp_path):
    for wrong in ("sk-sluice-guessed", "hello"):
        code, said = user("jobs", "list", key=wrong)
        assert code == exits.DENIED and "the key is unknown, expired or revoked; set SLUICE_API_KEY to one" in said
    key = running.client.keys.create("bad-input", ["algorithm"]).secret
    until(lambda: user("jobs", "list", key=key)[0] == exits.OK, "the key")
    rows = rows_file(tmp_path, "elsewhere.jsonl")
    code, said = user("dataset", "upload", rows, "--task-type", "sft", "--project", "nosuch")  # by an administrator
    assert code == exits.NOT_FOUND and "project `projects/nosuch` does not exist; `sluice projects list`" in said, said
    code, said = user("dataset", "upload", rows, "--task-type", "sft", "--project", "elsewhere", key=key)
    assert code == exits.DENIED and "has no role in `projects/elsewhere`" in said and "mistyped" in said
    code, said = user("rollouts", "rollback", ENDPOINT, key=key)
    assert code == exits.DENIED and "is algorithm in `projects/default` and needs operations" in said, said


def test_what_is_over_stays_as_it_is(user, running):
    job = running.client.jobs.list()[-1]
    for verb in ("cancel", "pause", "resume", "retry"):
        code, said = user("jobs", verb, job.name)
        assert code == exits.CONFLICT and "is SUCCEEDED" in said, said
    rollout = running.client.rollouts.list(ENDPOINT)[-1]
    code, said = user("rollouts", "promote", rollout.name)
    assert code == exits.CONFLICT and "is PROMOTED" in said, said
    assert running.client.jobs.get(job.name) == job
    assert running.client.rollouts.get(rollout.name).state == rollout.state


async def test_an_etag_of_before(running):
    name = "projects/default/datasets/rows"
    async with running.suite.channel() as channel:
        wanted = dataset.Dataset(name=name, description="d", etag="of-before")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await dataset.DatasetServiceStub(channel).UpdateDataset(dataset.UpdateDatasetRequest(dataset=wanted))
    stale = from_rpc_error(refused.value)
    assert stale.reason == errors.ERROR_REASON_STALE_ETAG and exits.code_of(stale) == exits.CONFLICT
    assert "again" in stale.message and {"ErrorInfo", "ResourceInfo"} <= details_of(refused.value), stale


async def test_an_upload_that_stops_is_not_lost(user, running, tmp_path):
    """Half a file through the public port; the command line then sends the rest of the same upload."""
    name, content = f"cut-{uuid.uuid4().hex[:8]}", jsonl(9, size=CHUNK)
    (tmp_path / f"{name}.jsonl").write_bytes(content)
    async with running.suite.channel() as channel:
        mine = Uploads(channel, "projects/default")
        await mine.create(name)
        parent = f"projects/default/datasets/{name}"
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        seed = f"{parent}\n{name}.jsonl\n{digest}\n0"  # as the command line names it
        wanted = {"size_bytes": len(content), "digest": digest, "request_id": str(uuid.uuid5(UPLOADS, seed))}
        request = dataset.CreateUploadRequest(parent=parent, file_name=f"{name}.jsonl", **wanted)
        upload = (await mine.uploads.CreateUpload(request)).upload
        await mine.write(*chunks(upload.name, content)[:8])
        kept = (await mine.uploads.GetUpload(dataset.GetUploadRequest(name=upload.name))).upload
        assert kept.committed_bytes == 8 * CHUNK
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await mine.uploads.CommitUpload(dataset.CommitUploadRequest(name=upload.name))
    fault = from_rpc_error(cut.value)
    assert isinstance(fault, StateConflict) and fault.reason == errors.ERROR_REASON_SIZE_MISMATCH, fault
    assert {"ErrorInfo", "PreconditionFailure"} <= details_of(cut.value)
    assert user("dataset", "upload", str(tmp_path / f"{name}.jsonl"), "--quiet")[0] == exits.OK
    after = running.client.datasets.version(f"{name}@1")
    assert after.source_digest == digest and after.row_count == 9
    async with running.suite.channel() as channel:
        uploads = dataset.UploadServiceStub(channel)
        same = (await uploads.GetUpload(dataset.GetUploadRequest(name=upload.name))).upload
    assert same.dataset_version == after.name and same.state == dataset.UPLOAD_STATE_COMMITTED


async def test_a_message_that_is_too_large(user, running, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * (33 << 20)))
    code, said = user("chat", ENDPOINT)
    assert code == exits.INVALID and "The body is longer than 33554432 bytes; send less" in said
    async with running.suite.channel() as channel:
        datasets = dataset.DatasetServiceStub(channel)
        wanted = dataset.Dataset(display_name="d", task_type="sft", description="x" * (5 << 20))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await datasets.CreateDataset(dataset.CreateDatasetRequest(parent="projects/default", dataset=wanted))
    fault = from_rpc_error(refused.value)
    assert fault.reason == errors.ERROR_REASON_MESSAGE_TOO_LARGE and exits.code_of(fault) == exits.INVALID
    assert "and the limit is 4194304; send it in smaller pieces" in fault.message


def details_of(error):
    """The kinds of detail that an answer carries."""
    return {each.type_url.rpartition(".")[2] for each in rpc_status.from_call(error).details}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_loses_nothing(small_disk, tmp_path, monkeypatch, capsys):
    """What is refused for want of space is not half there, what was there stays, and the same command then works."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_bytes(jsonl(30))
    second.write_bytes(jsonl(2000, mark=os.urandom(400).hex()))
    with suite(small_disk, "registry", "dataset") as running:
        monkeypatch.setenv("SLUICE_ADDRESS", running.address("dataset"))
        monkeypatch.setenv("SLUICE_API_KEY", running.key)
        assert sluice(["dataset", "upload", str(first), "--task-type", "sft"]) == exits.OK
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(bytes(free - 300_000))
        capsys.readouterr()
        assert sluice(["dataset", "upload", str(second), "--task-type", "sft"]) == exits.UNAVAILABLE
        assert capsys.readouterr().err == (
            "error: the disk of the service is full; free some space there, then repeat\n"
        )
        assert sluice(["dataset", "show", "first@1"]) == exits.OK
        (small_disk / "filler").unlink()
        assert sluice(["dataset", "upload", str(second), "--task-type", "sft"]) == exits.OK
        assert "second@1" in capsys.readouterr().out
