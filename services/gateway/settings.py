"""What the control process is told by its environment beyond what every process is; passed on by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kit.settings import Settings


@dataclass(frozen=True)
class Timing:
    """How long the control process waits for what, in seconds."""

    #: A version that nobody needs any more is unloaded after so long (``SLUICE_GATEWAY_GRACE_S``).
    grace_s: float = 60.0
    #: The version that served before stays loaded so long after a promotion (``SLUICE_GATEWAY_KEEP_S``).
    keep_s: float = 600.0
    #: A version that takes longer to load has failed (``SLUICE_GATEWAY_LOAD_LIMIT_S``).
    load_limit_s: float = 600.0
    #: A candidate route that nobody asks about ends after so long (``SLUICE_GATEWAY_LEASE_S``).
    lease_s: float = 60.0
    #: Between two looks at the engine host (``SLUICE_GATEWAY_HOST_POLL_S``).
    host_poll_s: float = 2.0
    #: Between two looks at the approvals of what serves (``SLUICE_GATEWAY_RECHECK_S``).
    recheck_s: float = 5.0
    #: Before the first repeat of a load that failed; doubles up to 30 s.
    backoff_s: float = 1.0
    #: A rollback waits at most so long for the workers to say that they follow.
    confirm_s: float = 0.9


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of the control process."""

    #: The settings that every service has.
    process: Settings
    timing: Timing

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> GatewaySettings:
        """Reads the environment; raises ValueError naming the variable that is wrong and what it should be."""
        timing = Timing(
            **{
                name: _seconds(environ, f"SLUICE_GATEWAY_{name.upper()}", getattr(Timing, name))
                for name in ("grace_s", "keep_s", "load_limit_s", "lease_s", "host_poll_s", "recheck_s")
            }
        )
        return cls(Settings.from_env("gateway", environ), timing)


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    try:
        value = float(environ.get(variable) or default)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{variable} is `{environ[variable]}`; it takes a number of seconds above 0")
    return value
