"""The processes of the suite: what each runs and with which environment; starting them is another's work."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from kit.bus.nats_server import KEY_VARIABLE
from services.suite.home import Home, SuiteError
from services.suite.processes import Spec

#: Every process of the suite and the module whose ``main`` it runs, in the order they start.
PROGRAMS = {
    "registry": "services.registry.__main__",
    "dataset": "services.dataset.__main__",
    "trainer": "services.trainer.__main__",
    "evaluator": "services.evaluator.__main__",
    "gateway": "services.gateway.__main__",
    "gateway-worker": "services.gateway.worker.__main__",
    "engine-host": "services.gateway.host.__main__",
}
#: Imported once, before the processes are forked off, so that they share the memory.
SHARED = (
    "kit.serve",
    "kit.blobs",
    "sluice.lifecycle",
    "sluice.gateway.v1",
    "sluice.trainer.v1",
    "sluice.evaluator.v1",
)


def chosen(only: str) -> list[str]:
    """The programs that ``registry,dataset`` names, all when empty. Raises SuiteError for one that is none."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in PROGRAMS:
            raise SuiteError(f"`{name}` is no process of the suite; --only takes some of {', '.join(PROGRAMS)}")
    return [name for name in PROGRAMS if name in names or not names]


def specs(
    home: Home,
    names: Collection[str],
    ports: Mapping[str, int],
    first_key_sha256: str,
    modules: Mapping[str, str] = PROGRAMS,
) -> list[Spec]:
    """The message bus first, unless it is the user's own, then the programs ``names``, each its module's ``main``."""
    logs = home.path / "logs"
    variables = {**home.variables(ports), "SLUICE_FIRST_KEY_SHA256": first_key_sha256}
    config, passwords = home.nats(ports["nats"])
    programs = [
        Spec(
            name,
            partial(_program, modules[name], f"sluice {name}"),
            logs / f"{name}.log",
            {**variables, "SLUICE_NATS_PASSWORD": passwords.get(name, "")},
        )
        for name in names
    ]
    if config is None:
        return programs
    key = {KEY_VARIABLE: f'"{home.stream_key()}"'}  # quoted: nats-server reads it as a value of its configuration
    return [Spec("nats", partial(_nats_server, config), logs / "nats.log", key), *programs]


def import_shared() -> None:
    """Imports what all processes need, so that they share it; frozen, as each collection would write into its pages."""
    for module in SHARED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def _program(module: str, title: str) -> None:
    from setproctitle import setproctitle

    setproctitle(title)
    importlib.import_module(module).main()


def _nats_server(config: Path) -> None:
    from kit.bus import find_binary

    path = str(find_binary())
    os.execv(path, [path, "--config", str(config)])
