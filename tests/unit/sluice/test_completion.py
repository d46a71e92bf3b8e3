"""What a shell completes: names of datasets, quickly, and nothing where the suite does not answer."""

import socket
import time
from collections.abc import Callable

import pytest
from scripted_suite import Script

from sluice.cli.app import app
from sluice.dataset import v1 as dataset

Completed = Callable[..., list[str]]


@pytest.fixture
def completed(monkeypatch, capfd) -> Completed:
    """What bash is told of a line that ends with these words."""

    def complete(*words: str) -> list[str]:
        line = ["sluice", *words]
        environment = {
            "_SLUICE_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(line),
            "COMP_CWORD": str(len(words)),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            app(prog_name="sluice")
        told = capfd.readouterr()
        assert told.err == ""
        return told.out.split()

    return complete


def some(completed: Completed, *words: str) -> list[str]:
    """What is completed where something is: on a busy machine half a second may be too short for it."""
    deadline = time.monotonic() + 60
    while not (found := completed(*words)):
        assert time.monotonic() < deadline
    return found


@pytest.fixture
def known(script: Script, address, monkeypatch) -> Script:
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    for name in ("bank-intents", "bank-corpus", "xray"):
        full = f"projects/default/datasets/{name}"
        script.datasets[full] = dataset.Dataset(name=full)
    return script


@pytest.mark.parametrize(
    "words",
    [
        ("dataset", "show"),
        ("dataset", "forget"),
        ("dataset", "audit"),
        ("dataset", "stats"),
        ("dataset", "assets"),
        ("dataset", "quarantine"),
        ("dataset", "feed", "push"),
        ("dataset", "upload", "rows.jsonl", "--name"),
        ("train", "--dataset"),
    ],
)
def test_a_dataset_is_completed(words, completed, known, address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    assert some(completed, *words, "bank") == ["bank-intents", "bank-corpus"]


def test_address_and_project_of_the_line_are_those_that_are_asked(completed, known, address):
    for line in (("--address", address, "dataset", "show"), ("dataset", "show", "--address", address)):
        assert some(completed, *line, "x") == ["xray"]
    assert {each.parent for each in known.requests} == {"projects/default"}
    assert some(completed, "dataset", "show", "--address", address, "--project", "other", "x") == ["xray"]
    assert known.requests[-1].parent == "projects/other"


def test_whatever_fails_completes_nothing_and_says_nothing(completed, known, address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    assert completed("dataset", "show", "--project", "No Name", "b") == []
    with socket.socket() as nobody:  # bound, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        assert completed("dataset", "show", "--address", f"127.0.0.1:{nobody.getsockname()[1]}", "b") == []
    assert not known.requests


def test_a_suite_that_does_not_answer_is_not_waited_for(completed, known, monkeypatch):
    with socket.socket() as silent:  # takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("SLUICE_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        assert completed("dataset", "show", "b") == []  # half a second, and not the 30 of other calls
