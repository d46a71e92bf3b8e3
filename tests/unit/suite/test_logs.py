"""Logs of processes are kept small while they are written."""

import os
from pathlib import Path

from services.suite.logs import rotate


def test_a_log_is_rotated_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "registry.log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
        os.write(writer, line)
        assert not rotate(log, limit_bytes=6)
        os.write(writer, line)
        assert rotate(log, limit_bytes=6, keep=3)
    os.write(writer, b"five\n")
    os.close(writer)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {
        "registry.log": "five\n",
        "registry.log.1": "four\nfour\n",
        "registry.log.2": "three\nthree\n",
        "registry.log.3": "two\ntwo\n",
    }
    assert (tmp_path / "registry.log.1").stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_copied_stays(tmp_path: Path) -> None:
    log = tmp_path / "registry.log"
    assert not rotate(log)
    log.write_text("x" * 10)
    (tmp_path / "registry.log.1").mkdir()
    assert not rotate(log, limit_bytes=5, keep=1) and log.read_text() == "x" * 10
    assert {path.name for path in tmp_path.iterdir()} == {"registry.log", "registry.log.1"}
