"""Files that are pushed to a feed: once, and again."""

import pytest

from sluice.cli import run
from sluice.client import RowsRefused
from sluice.dataset import v1 as dataset


@pytest.fixture(autouse=True)
def _suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


def test_a_file_that_was_pushed_before_is_said_to_add_nothing(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b"}\n')

    def pushed():
        assert run(["dataset", "feed", "push", "d", str(file)]) == 0
        out, err = capsys.readouterr()
        return out.split(), err

    out, err = pushed()
    assert out[out.index("waiting") + 1] == "2" and "nothing was added" not in err and "feed flush d" in err
    out, err = pushed()
    assert out[out.index("waiting") + 1] == "2" and "nothing was added" in err and "feed flush d" in err
    assert run(["dataset", "feed", "flush", "d"]) == 0
    capsys.readouterr()
    out, err = pushed()
    assert out[out.index("waiting") + 1] == "0" and "nothing was added" in err and "feed flush" not in err


def test_an_upload_that_was_made_and_failed_between_two_looks_is_told(client, script):
    of = "projects/default/datasets/d"
    script.feed.name, script.feed.next_upload = f"{of}/feeds/default", f"{of}/uploads/first"

    def failed():
        upload = dataset.Upload(name=f"{of}/uploads/first", state=dataset.UPLOAD_STATE_FAILED)
        upload.failure.message = "its rows are wrong"
        script.uploads[upload.name] = upload
        script.feed.next_upload = f"{of}/uploads/second"  # where the rows wait again

    script.looked_at_feed = failed
    with pytest.raises(RowsRefused, match="its rows are wrong"):
        client.feeds.flush("d")
