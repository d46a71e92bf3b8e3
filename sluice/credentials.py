"""The user's keys by address of the suite, in one private file; it never asks a service whether they work.

${XDG_CONFIG_HOME:-~/.config}/sluice/credentials.json
{"127.0.0.1:7500": {"api_key": "sk-sluice-…", "project": "default", "http": "http://127.0.0.1:8080"}}
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

DEFAULT_ADDRESS = "127.0.0.1:7500"
DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class Credentials:
    """What a user needs for one suite; ``http`` is the base of its OpenAI interface, without ``/v1``."""

    api_key: str = field(repr=False)
    project: str = DEFAULT_PROJECT
    http: str = ""


def credentials_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the file lies, whether it exists or not."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sluice" / "credentials.json"


def recall(address: str, environ: Mapping[str, str] = os.environ) -> Credentials | None:
    """The credentials for a suite; None where the file has none, Invalid when it makes no sense."""
    entry = _read(credentials_path(environ)).get(canonical(address))
    if not isinstance(entry, dict) or not entry.get("api_key"):
        return None
    return Credentials(
        api_key=str(entry["api_key"]),
        project=str(entry.get("project") or DEFAULT_PROJECT),
        http=str(entry.get("http") or ""),
    )


def remember(address: str, credentials: Credentials, environ: Mapping[str, str] = os.environ) -> Path:
    """Keeps the credentials for a suite (file 0600, folder 0700) and leaves those for others as they are.

    Raises Invalid when the present file makes no sense: a file with somebody's keys is never thrown away.
    """
    path = credentials_path(environ)
    _write(path, _read(path) | {canonical(address): asdict(credentials)})
    return path


def forget(address: str, environ: Mapping[str, str] = os.environ) -> Credentials | None:
    """Drops the credentials for a suite and returns what they were; None where the file had none."""
    known = recall(address, environ)
    if known:
        path = credentials_path(environ)
        entries = _read(path)
        del entries[canonical(address)]
        _write(path, entries)
    return known


def canonical(address: str) -> str:
    """One spelling for addresses that mean the same: `localhost:7500` gives `127.0.0.1:7500`."""
    host, colon, port = address.strip().rpartition(":")
    return f"127.0.0.1{colon}{port}" if host in ("localhost", "[::1]") else address.strip()


def _write(path: Path, entries: Mapping[str, object]) -> None:
    """Replaces the file in one step, so that a crash leaves the old one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")  # 0600 from its birth
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()
        raise


def _read(path: Path) -> dict[str, object]:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(entries, dict):
        raise _unreadable(path, "it holds no JSON object")
    return entries


def _unreadable(path: Path, why: object) -> Exception:
    from kit.rpc.errors import Invalid

    reason = type(why).__name__ if isinstance(why, Exception) else why
    return Invalid(f"the credentials file {path} cannot be read ({reason}); repair it, or move it away")
