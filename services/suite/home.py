"""The folder of a suite: its layout, the identities and secrets made at the first start, and who holds it now."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.auth.keys import new_key
from kit.auth.tokens import Identity
from kit.blobs import FileKek
from kit.bus import write_config
from kit.bus.stream_key import stream_key
from kit.settings import SERVICES, config_folder
from services.suite.ports import choose, refusal
from sluice.credentials import Credentials, forget, remember

#: In the environment of every process of a suite and of what those start: which suite it belongs to.
MARK = "SLUICE_SUITE"
FOLDERS = ("run", "run/identity", "db", "nats", "blobs", "jobs", "cache/engine", "logs/traces")
#: Whose events each service consumes; it may read no others.
CONSUMES = {
    "dataset": ("evaluator", "feed", "registry", "trainer"),
    "trainer": (),
    "evaluator": ("dataset", "registry"),
    "registry": ("trainer", "evaluator", "gateway"),
    "gateway": ("registry",),
}
#: The users of outside systems at NATS, and the source that each may send to.
SENDERS = {"feeds": "feed"}
INTERNAL = ("dataset", "trainer", "evaluator", "registry", "engine-host", "nats")


class SuiteError(Exception):
    """The suite cannot start or stop; the message is one sentence that names the thing and the fix."""


@dataclass(frozen=True)
class Home:
    """The folder ``path`` of one suite; ``environ`` is what its processes inherit."""

    path: Path
    environ: Mapping[str, str]

    @property
    def state_file(self) -> Path:
        """Where ports and process ids of the running suite stand."""
        return self.path / "run" / "suite.json"

    def state(self) -> dict[str, Any]:
        """What the state file says; empty when there is none."""
        try:
            return dict(json.loads(self.state_file.read_text()))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unusable(self.path, error) from None
        except ValueError:
            raise SuiteError(f"`{self.state_file}` is damaged; remove it, then start again") from None

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replaces the state file in one move."""
        _replace(self.state_file, json.dumps(state, indent=1))

    @property
    def lock_file(self) -> Path:
        """Locked as long as any process of a suite in this home lives, however the others ended."""
        return self.path / "run" / "lock"

    def is_held(self) -> bool:
        """Whether a suite runs in this home. Unlike a process id, the lock cannot outlive what it stands for."""
        try:
            lock = os.open(self.lock_file, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(self.path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def prepare(self) -> None:
        """Takes the home for this process and all that it forks, and makes what is missing in it."""
        try:
            for name in ("", *FOLDERS):
                (self.path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            self._hold()
            for service in SERVICES:
                if not (self.path / "run" / "identity" / f"{service}.key").exists():
                    Identity.create(self.path / "run" / "identity", service)
        except OSError as error:
            raise _unusable(self.path, error) from None
        self._make_kek()
        self._note_blobs()

    def _hold(self) -> None:
        lock = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)  # open until the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            pid = self.state().get("pid")
            who = f" (process {pid})" if pid else ""
            raise SuiteError(f"a suite runs in `{self.path}` already{who}; `sluice down` stops it") from None

    def _make_kek(self) -> None:
        """Makes the key of a new home, and remembers which it was: blobs in a bucket cannot be looked for here."""
        marker = self.path / "run" / "kek-id"
        known = marker.read_text() if marker.exists() else ""
        try:
            kek = FileKek.load(self.kek, home=self.path)
        except FileNotFoundError:
            if known or any((self.path / "blobs").iterdir()):
                raise self._kek_is("gone") from None
            kek = self._new_kek()
        except (OSError, ValueError) as error:
            raise SuiteError(f"the key-encryption key cannot be used: {error}") from None
        if known and known not in {each.key_id for each in kek.generations()}:
            raise self._kek_is("another than this home was made with")
        _replace(marker, kek.key_id)

    def _note_blobs(self) -> None:
        """Remembers where the blobs are: who rotates their key must not take another store for this suite's."""
        note = self.path / "run" / "blobs-url"
        _replace(note, self.environ.get("SLUICE_BLOBS_URL", ""))
        note.chmod(0o600)

    def _kek_is(self, what: str) -> SuiteError:
        return SuiteError(
            f"the key-encryption key `{self.kek}` is {what}, and nothing stored for `{self.path}` can be read "
            "without the right one; restore it from its backup, or say with SLUICE_KEK where it is"
        )

    def _new_kek(self) -> FileKek:
        try:
            return FileKek.create(self.kek, home=self.path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SuiteError(
                f"the key-encryption key cannot be written to `{self.kek}` ({why}); choose another file with SLUICE_KEK"
            ) from None

    @property
    def kek(self) -> Path:
        """The key-encryption key, outside the home so that a copy of the home alone can be read by nobody."""
        return Path(self.environ.get("SLUICE_KEK") or config_folder(self.environ) / "kek")

    def ports(self, grpc_port: int, http_port: int) -> dict[str, int]:
        """A port for everything: the two public ones as asked, the others as last time where they are still free."""
        before = self.state().get("ports", {})
        public = {"gateway": grpc_port, "http": http_port}
        for name, port in public.items():
            if why := refusal(port):
                flag = "--grpc-port" if name == "gateway" else "--http-port"
                raise SuiteError(f"port {port} {why} choose another with {flag}")
        wanted = {**{name: before.get(name, 0) for name in INTERNAL}, **public}
        return choose(wanted)

    def first_key(self, address: str, http: str) -> tuple[str, str]:
        """The administrator's key of a suite whose registry is empty, and its SHA-256; ("", "") when there is one.

        The secret goes to the user's credentials file and nowhere else; the registry is told the hash.
        """
        marker = self.path / "run" / "first-key"
        if marker.exists():
            return "", marker.read_text()
        secret, sha256, _ = new_key()
        remember(address, Credentials(api_key=secret, project="default", http=http), self.environ)
        _replace(marker, sha256.hex())  # a marker without its hash would lock everybody out
        return secret, sha256.hex()

    def keep_credentials(self, address: str, http: str) -> None:
        """Moves the credentials along when the suite was started on other ports than last time."""
        before = self.state().get("address")
        if before and before != address:
            known = forget(before, self.environ)
            if known:
                remember(address, Credentials(known.api_key, known.project, http), self.environ)

    def variables(self, ports: Mapping[str, int]) -> dict[str, str]:
        """The environment of every process of this suite."""
        addresses = {
            f"SLUICE_{name.upper().replace('-', '_')}_ADDRESS": f"127.0.0.1:{port}"
            for name, port in ports.items()
            if name != "nats"
        }
        return {
            "SLUICE_HOME": str(self.path),
            MARK: str(self.path),
            "SLUICE_KEK": str(self.kek),
            "SLUICE_NATS_URL": self.own_nats or f"nats://127.0.0.1:{ports['nats']}",
            **addresses,
        }

    @property
    def own_nats(self) -> str:
        """The URL of the user's own NATS; empty when the suite is to start one."""
        return self.environ.get("SLUICE_NATS_URL", "")

    def nats(self, port: int) -> tuple[Path | None, dict[str, str]]:
        """The password of each service at NATS, and the configuration of the embedded server, unless there is another.

        At the user's own, ``SLUICE_NATS_PASSWORD_<SERVICE>`` wins over ``SLUICE_NATS_PASSWORD``.
        """
        if self.own_nats:
            shared = self.environ.get("SLUICE_NATS_PASSWORD", "")
            return None, {name: self.environ.get(f"SLUICE_NATS_PASSWORD_{name.upper()}", shared) for name in SERVICES}
        credentials = write_config(self.path / "nats", port, CONSUMES, senders=SENDERS, encrypted=True)
        return self.path / "nats" / "nats.conf", {name: each.password for name, each in credentials.items()}

    def stream_key(self) -> str:
        """The key of the embedded NATS, for its environment alone."""
        try:
            return stream_key(self.path / "nats" / "key", FileKek.load(self.kek, home=self.path))
        except (OSError, ValueError) as error:
            raise SuiteError(f"the message bus cannot be started: {error}") from None


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def _unusable(path: Path, error: OSError) -> SuiteError:
    return SuiteError(f"`{path}` cannot be used as home ({error.strerror}); choose another with --home")


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
