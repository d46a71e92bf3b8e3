"""What a process of the suite is told by its environment; read once at its start and passed on by value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

SERVICES = ("dataset", "trainer", "evaluator", "registry", "gateway")


@dataclass(frozen=True)
class Settings:
    """The settings of one process; every field has an environment variable, named beside it."""

    #: Which service this process is part of.
    service: str
    #: Where the suite keeps its files (``SLUICE_HOME``).
    home: Path
    #: Where each service listens, by name (``SLUICE_<SERVICE>_ADDRESS``), and ``engine-host`` and ``http``.
    addresses: Mapping[str, str] = field(default_factory=dict)
    #: The SQL database; ``{service}`` is replaced (``SLUICE_DATABASE_URL``). Default: a SQLite file each.
    database_url: str = ""
    #: The NATS server or cluster (``SLUICE_NATS_URL``).
    nats_url: str = ""
    #: The password of this service's NATS user (``SLUICE_NATS_PASSWORD``).
    nats_password: str = field(default="", repr=False)
    #: Copies that a cluster of NATS servers keeps of each stream: 1, 3 or 5 (``SLUICE_NATS_REPLICAS``).
    nats_replicas: int = 1
    #: The blob store (``SLUICE_BLOBS_URL``). Default: a folder below the home.
    blobs_url: str = ""
    #: The file with the key-encryption key, never below the home (``SLUICE_KEK``).
    kek_path: Path = Path()
    #: The folder with this service's private and all public identity keys (``SLUICE_IDENTITY``).
    identity_folder: Path = Path()
    #: Debug, info, warning or error (``LOG_LEVEL``).
    log_level: str = "INFO"
    #: False lets everybody do everything; for a closed laptop only (``ENABLE_AUTH``).
    enable_auth: bool = True
    #: Where traces go; empty means rotated files (``OTEL_EXPORTER_OTLP_ENDPOINT``).
    otlp_endpoint: str = ""
    #: SHA-256 (hex) of the first administrator's key, for an empty registry (``SLUICE_FIRST_KEY_SHA256``).
    first_key_sha256: str = ""
    #: Seconds between a reconciler's looks (``SLUICE_RECONCILE_S``).
    reconcile_s: float = 60.0
    #: Seconds within which the bus itself forgets a repeated message id (``SLUICE_DUPLICATE_WINDOW_S``).
    duplicate_window_s: float = 120.0

    @classmethod
    def from_env(cls, service: str, environ: Mapping[str, str]) -> Settings:
        """Reads the environment; raises ValueError naming the variable that is wrong and what it should be."""
        home = Path(environ.get("SLUICE_HOME") or ".sluice").resolve()
        names = (*SERVICES, "engine-host", "http")
        variables = {name: f"SLUICE_{name.upper().replace('-', '_')}_ADDRESS" for name in names}
        return cls(
            service=service,
            home=home,
            addresses={name: environ[key] for name, key in variables.items() if environ.get(key)},
            database_url=(environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home}/db/{{service}}.db").replace(
                "{service}", service
            ),
            nats_url=environ.get("SLUICE_NATS_URL", ""),
            nats_password=environ.get("SLUICE_NATS_PASSWORD", ""),
            nats_replicas=int(_one_of(environ, "SLUICE_NATS_REPLICAS", ("1", "3", "5"))),
            blobs_url=environ.get("SLUICE_BLOBS_URL") or f"file://{quote(str(home))}/blobs",
            kek_path=Path(environ.get("SLUICE_KEK") or config_folder(environ) / "kek"),
            identity_folder=Path(environ.get("SLUICE_IDENTITY") or home / "run" / "identity"),
            log_level=_one_of(environ, "LOG_LEVEL", ("INFO", "DEBUG", "WARNING", "ERROR")),
            enable_auth=_one_of(environ, "ENABLE_AUTH", ("TRUE", "FALSE")) == "TRUE",
            otlp_endpoint=environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
            first_key_sha256=_sha256(environ, "SLUICE_FIRST_KEY_SHA256"),
            reconcile_s=_seconds(environ, "SLUICE_RECONCILE_S", 60.0),
            duplicate_window_s=_seconds(environ, "SLUICE_DUPLICATE_WINDOW_S", 120.0),
        )

    def address(self, name: str) -> str:
        """Where ``name`` listens; raises ValueError naming the variable that is missing."""
        if name not in self.addresses:
            variable = f"SLUICE_{name.upper().replace('-', '_')}_ADDRESS"
            raise ValueError(f"{variable} is not set; give it as host:port, or start the suite with `sluice up`")
        return self.addresses[name]


def config_folder(environ: Mapping[str, str]) -> Path:
    """The folder of the user's own files: credentials and, unless placed elsewhere, the key-encryption key."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sluice"


def _one_of(environ: Mapping[str, str], variable: str, values: tuple[str, ...]) -> str:
    value = (environ.get(variable) or values[0]).upper()
    if value not in values:
        raise ValueError(f"{variable} is `{environ[variable]}`; it takes one of {', '.join(values)}")
    return value


def _sha256(environ: Mapping[str, str], variable: str) -> str:
    value = environ.get(variable, "")
    if value and not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{variable} is no SHA-256; it takes 64 hex digits in lower case, or nothing")
    return value


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    try:
        value = float(environ.get(variable) or default)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:  # neither holds for NaN
        raise ValueError(f"{variable} is `{environ[variable]}`; it takes a number of seconds above 0")
    return value
