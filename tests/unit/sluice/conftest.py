"""A scripted suite, and clients that know nothing of this machine's own credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_suite import Script, ScriptedSuite

from sluice import Client
from sluice.cli import screen


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def address(script: Script) -> Iterator[str]:
    suite = ScriptedSuite(script)
    yield suite.address
    suite.stop()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLUICE_ADDRESS", "SLUICE_API_KEY", "SLUICE_PROJECT", "SLUICE_HTTP", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    screen.out.cache_clear()
    screen.err.cache_clear()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, api_key="sl_test") as made:
        yield made
