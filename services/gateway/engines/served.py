"""What a host is asked to serve, and under which names; pure, it knows no process and no file."""

import hashlib
from dataclasses import dataclass, field

from services.gateway.engines.errors import EngineError
from services.gateway.engines.protocol import Task


@dataclass(frozen=True)
class Running:
    """Where a version is served: `model` is the name to ask for at `url` with bearer `key`."""

    url: str
    key: str = field(repr=False)
    model: str
    digest: str
    base_digest: str


@dataclass
class Wanted:
    """What a host should run for one base; kept in `wanted.json`, so that no crash loses it."""

    digest: str
    model_dir: str
    lora: bool
    task: Task
    adapters: dict[str, str]  # digest → folder, in the order of loading
    proven: list[str]  # adapter digests that answered soundly on a scratch engine of this base
    direct: bool = False  # asked for by itself, not only for its adapters
    lora_rank: int = 0  # the highest of its adapters, where that is above what engines start with


def plain_digest(digest: str) -> str:
    """The 64 hex digits of `sha256:<hex>` or `<hex>`. Raises EngineError for anything else."""
    digits = digest.removeprefix("sha256:")
    if len(digits) != 2 * hashlib.sha256().digest_size or not set(digits) <= set("0123456789abcdef"):
        raise EngineError("A digest must be 64 lower-case hex digits.", "Pass the SHA-256 of the version's files.")
    return digits


def served_name(digest: str) -> str:
    """The model name a digest is served under: `sha256-` and its first 16 digits."""
    return f"sha256-{plain_digest(digest)[:16]}"
