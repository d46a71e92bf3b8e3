"""What the evaluator is told by its environment beyond what every process is; read once and passed on by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kit.settings import Settings


@dataclass(frozen=True)
class EvaluatorSettings:
    """The settings of the evaluator; every field has an environment variable, named beside it."""

    #: The settings that every service has.
    process: Settings
    #: Evaluations that run at the same time (``SLUICE_EVALUATOR_CONCURRENCY``).
    concurrency: int = 1
    #: Rows that are asked at the same time (``SLUICE_EVALUATOR_ROW_CONCURRENCY``).
    row_concurrency: int = 16
    #: Seconds an engine may take to answer one row (``SLUICE_EVALUATOR_REQUEST_TIMEOUT_S``).
    request_timeout_s: float = 120.0
    #: Seconds an engine may take to load a version (``SLUICE_EVALUATOR_PREPARE_TIMEOUT_S``).
    prepare_timeout_s: float = 600.0
    #: Seconds an evaluation may take once it was begun (``SLUICE_EVALUATOR_TIME_LIMIT_S``); 6 hours.
    time_limit_s: float = 21_600.0
    #: An evaluation that waits longer expires (``SLUICE_EVALUATOR_WAITING_LIMIT_S``); 7 days.
    waiting_limit_s: float = 604_800.0
    #: How far log-probabilities of engine and recipe may differ, in nats (``SLUICE_EVALUATOR_PARITY_TOLERANCE``).
    parity_tolerance: float = 0.01

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> EvaluatorSettings:
        """Reads the environment; raises ValueError naming the variable that is wrong and what it should be."""
        return cls(
            process=Settings.from_env("evaluator", environ),
            concurrency=_count(environ, "SLUICE_EVALUATOR_CONCURRENCY", cls.concurrency),
            row_concurrency=_count(environ, "SLUICE_EVALUATOR_ROW_CONCURRENCY", cls.row_concurrency),
            request_timeout_s=_positive(environ, "SLUICE_EVALUATOR_REQUEST_TIMEOUT_S", cls.request_timeout_s),
            prepare_timeout_s=_positive(environ, "SLUICE_EVALUATOR_PREPARE_TIMEOUT_S", cls.prepare_timeout_s),
            time_limit_s=_positive(environ, "SLUICE_EVALUATOR_TIME_LIMIT_S", cls.time_limit_s),
            waiting_limit_s=_positive(environ, "SLUICE_EVALUATOR_WAITING_LIMIT_S", cls.waiting_limit_s),
            parity_tolerance=_positive(environ, "SLUICE_EVALUATOR_PARITY_TOLERANCE", cls.parity_tolerance),
        )


def _count(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable) or str(default)
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{variable} is `{text}`; it takes a whole number from 1")
    return int(text)


def _positive(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{variable} is `{text}`; it takes a number above 0")
    return value
