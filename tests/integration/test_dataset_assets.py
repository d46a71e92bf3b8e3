"""Images with rows through a running suite: in an archive and beside them, shared, and read lazily."""

import io
import json
import zipfile
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from kit.rpc.errors import NotFound
from sluice import Client
from sluice.client import RowsRefused

DICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


@pytest.fixture
def client(running, project):
    with Client(running.address("dataset"), running.key, project) as client:
        yield client


def png(shade, size=(12, 8)):
    sink = io.BytesIO()
    Image.new("L", size, shade).save(sink, "PNG")
    return sink.getvalue()


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


ROWS = [{"image_path": f"images/{n}.png", "question": f"what is {n}?", "output": f"a shade {n}"} for n in range(20)]
IMAGES = {f"images/{n}.png": png(n) for n in range(20)}


def test_an_archive_of_rows_and_images_becomes_a_version(client, tmp_path):
    path = zipped(tmp_path / "chest.zip", {"rows.jsonl": jsonl(ROWS), **IMAGES, "images/unused.png": png(99)})
    version = client.datasets.upload(name="chest", path=path, task_type="vqa", modalities=["image", "text"])
    opened = client.datasets.open(version.name)
    table = opened.arrow()
    assert table.column_names == ["messages", "images", "id", "group", "tags"] and len(table) == 20
    for row in table.to_pylist():
        (digest,) = row["images"]
        shade = int(row["messages"][1]["content"].removeprefix("a shade "))
        assert opened.asset(digest) == IMAGES[f"images/{shade}.png"]
    assert row["messages"][0]["content"].startswith("<image>what")
    known = client.datasets.assets(version.name)
    assert len(known) == 20 and {(each.type, each.width, each.height) for each in known} == {("image/png", 12, 8)}
    assert opened.dataset(images=True)[3]["images"][0].getpixel((0, 0)) == 3
    assert next(iter(opened.torch(images=True)))["images"][0].shape == (1, 8, 12)
    assert next(client.datasets.read(version.name))["images"] == table.column("images")[0].as_py()


def test_files_beside_rows_are_sent_once_and_may_be_dicom(client, tmp_path):
    folder = tmp_path / "files"
    (folder / "images").mkdir(parents=True)
    for name, content in IMAGES.items():
        (folder / name).write_bytes(content)
    (folder / "scan").write_bytes(DICOM.read_bytes())
    rows = [{"image": "scan", "findings": "a scan", "impression": "small"}, *ROWS]
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows))
    sent = []
    given = {"path": tmp_path / "rows.jsonl", "task_type": "sft", "assets": folder, "progress": sent.append}
    version = client.datasets.upload(name="beside", **given)
    total = sum(map(len, IMAGES.values())) + DICOM.stat().st_size
    assert [each.total for each in sent if each.phase == "assets"][-1] == total
    opened = client.datasets.open(version.name)
    scan = opened.arrow().column("images")[0].as_py()[0]
    assert opened.asset(scan) == DICOM.read_bytes()
    shown = Image.open(io.BytesIO(opened.asset(scan, png=True)))
    assert shown.format == "PNG" and shown.size == (128, 128) == opened.image(scan).size
    with pytest.raises(NotFound, match="no row of"):
        opened.asset("sha256:" + "0" * 64)
    sent.clear()
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows[:5]))
    again = client.datasets.upload(name="other", **given)
    assert not [each for each in sent if each.phase == "assets"] and again.row_count == 5
    named = {each.digest for each in client.datasets.assets(again.name)}
    other = next(each.digest for each in client.datasets.assets(version.name) if each.digest not in named)
    with pytest.raises(NotFound):  # of the project, but no row of this version names it
        client.datasets.asset(again.name, other)


def test_rows_without_images_are_read_together_with_those_that_have_some(client, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"prompt": "q", "completion": "a"}]))
    path = zipped(tmp_path / "b.zip", {"rows.jsonl": jsonl(ROWS[:2]), **IMAGES})
    client.datasets.upload(name="mixed", path=tmp_path / "a.jsonl", task_type="sft")
    version = client.datasets.upload(name="mixed", path=path, append=True)
    images = client.datasets.open(version.name).arrow().column("images").to_pylist()
    assert images[0] is None and [len(each) for each in images[1:]] == [1, 1]
    assert client.datasets.open("mixed@1").arrow().column_names == ["messages", "id", "group", "tags"]
    assert client.datasets.open("mixed@1", columns=["images"]).arrow().column("images").to_pylist() == [None]


def test_what_is_wrong_with_images_is_told_with_row_and_repair(client, tmp_path):
    rows = [{**ROWS[0], "image_path": "images/00.png"}, ROWS[1], {**ROWS[2], "image_path": "https://x/y.png"}]
    files = {"data/rows.jsonl": jsonl(rows), "data/images/0.png": png(0), "data/images/1.png": b"x"}
    path = zipped(tmp_path / "bad.zip", files)
    with pytest.raises(RowsRefused) as refused:
        client.datasets.upload(name="bad", path=path, task_type="vqa")
    found = [(each.file, each.row, each.kind) for each in refused.value.upload.violations]
    kinds = ["missing-asset", "undecodable-image", "remote-asset"]
    assert found == [("data/rows.jsonl", row, kind) for row, kind in enumerate(kinds, 1)]
    assert refused.value.upload.violations[0].repair == "`images/0.png`?"
    path = zipped(tmp_path / "hostile.zip", {"rows.jsonl": jsonl(ROWS), "../../1.png": png(1)})
    with pytest.raises(RowsRefused, match="the file as a whole: expected paths inside the archive"):
        client.datasets.upload(name="bad", path=path, task_type="vqa")
