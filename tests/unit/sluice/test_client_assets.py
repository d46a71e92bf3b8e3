"""Files beside rows: which are sent, how often, and what happens when the suite breaks off."""

import hashlib

import pytest
from scripted_suite import Script

from kit.rpc.errors import Invalid
from sluice.client import assets, uploads
from sluice.client.acknowledged import CHUNK_BYTES

NAMES = [f"images/{n}.png" for n in range(40)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    for name in (*NAMES, ".hidden/x.png", "__MACOSX/y.png", "rows.jsonl", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "empty.png").touch()
    (folder / "again.png").write_bytes(NAMES[0].encode())
    return folder


def send(client, folder, **more):
    return client.datasets.upload(name="chest", path=folder / "rows.jsonl", task_type="sft", assets=folder, **more)


def named(script: Script):
    requests = [each for each in script.requests if hasattr(each, "assets")]
    return {each.path: each.digest for request in requests for each in request.assets}


def digest_of(name):
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def test_each_content_is_sent_once_and_known_by_all_its_paths(client, script: Script, folder):
    told = []
    send(client, folder, progress=told.append)
    assert named(script) == {name: digest_of(name) for name in NAMES} | {"again.png": digest_of(NAMES[0])}
    assert script.asset_counts == {digest_of(name): 1 for name in NAMES}
    phases = [each.phase for each in told if each.done == each.total]
    assert list(dict.fromkeys(phases)) == ["hashing", "listing", "assets", "sending", "checking"]


def test_what_the_project_has_is_not_sent(client, script: Script, folder):
    script.assets = {digest_of(name): b"" for name in NAMES[5:]}
    send(client, folder)
    assert set(script.asset_counts) == {digest_of(name) for name in NAMES[:5]}


def test_streams_that_break_send_only_what_is_lacking_still(client, script: Script, folder):
    script.asset_breaks = [3, 0, 2, 5, 1]
    send(client, folder)
    assert set(script.assets) == {digest_of(name) for name in NAMES}
    assert sum(script.asset_counts.values()) <= len(NAMES) + 5


def test_a_stream_brings_no_more_than_may_be_sent_again(client, script: Script, folder):
    """What it brought counts when it is answered, so that all streams together are one chunk ahead."""
    for name in NAMES[1:9]:
        (folder / name).write_bytes(name.encode() * (1 << 16))
    sizes = [(folder / name).stat().st_size for name in NAMES[1:9]]
    send(client, folder)
    assert max(sum(stream) for stream in script.asset_streams) <= assets.SENT_BYTES
    assert sum(map(sum, script.asset_streams)) == sum(sizes) + sum(map(len, [NAMES[0], *NAMES[9:]]))
    assert assets.STREAMS * assets.SENT_BYTES <= CHUNK_BYTES


def test_another_picture_under_the_same_name_is_another_upload(client, script: Script, folder):
    send(client, folder)
    send(client, folder)
    assert len(script.uploads) == 1
    (folder / NAMES[3]).write_bytes(b"another")
    send(client, folder)
    assert len(script.uploads) == 2


def test_a_folder_that_cannot_be_sent_is_named(client, script: Script, folder, tmp_path):
    with pytest.raises(Invalid, match="there is no folder"):
        client.datasets.upload(name="c", path=folder / "rows.jsonl", task_type="sft", assets=tmp_path / "none")
    with (folder / "huge.dcm").open("wb") as huge:
        huge.truncate(assets.MAX_BYTES + 1)
    with pytest.raises(Invalid, match=r"huge\.dcm` has more than 128 MiB"):
        send(client, folder)
    with pytest.raises(Invalid, match="has its images in it"):
        client.datasets.upload(name="c", path=folder / "a.tar.gz", task_type="sft", assets=folder)
    assert script.uploads == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.unlink(missing_ok=True), r"3\.png` cannot be read \(No such file"),
        (lambda file: file.write_bytes(b"x"), r"3\.png` has changed"),
        (lambda file: file.write_bytes(b"x" * 99), r"3\.png` has changed"),
    ],
)
def test_a_file_that_changes_after_it_was_hashed_is_named(client, folder, change, said):
    def hashed(progress):
        if progress.phase == "listing":
            change(folder / NAMES[3])

    with pytest.raises(Invalid, match=said):
        send(client, folder, progress=hashed)


def test_an_upload_without_files_is_the_one_it_was(tmp_path):
    assert str(uploads.Wishes()) == "" == assets.identity([])
