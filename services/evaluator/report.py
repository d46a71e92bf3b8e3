"""Answers and references into figures with intervals; where either comes from is not known here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from google.protobuf.json_format import MessageToDict, ParseDict

from kit.rpc.errors import StateConflict
from services.evaluator.bootstrap import interval
from services.evaluator.metrics import Metric, MetricFailed, Statistics, kind_of, make
from services.evaluator.questions import Question
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator

ROUNDING = 1e-9


@dataclass(frozen=True)
class Given:
    """What one version gave: answers by the key of their question, and by it why there is none."""

    answers: Mapping[int, str]
    failed: Mapping[int, str]


def make_report(
    names: Sequence[str], questions: Sequence[Question], candidate: Given, incumbent: Given | None
) -> tuple[evaluator.Report, list[evaluator.EvaluationRow]]:
    """The report, without parity and digests, and the result of each row. Blocks: call it in a thread.

    Both versions are scored on the rows that both answered, so that the figures are paired. A metric that no row
    asks for is left out.
    Raises MetricFailed when a metric gives no number, StateConflict (ENGINE_FAILED) when no row can be scored.
    """
    rows = [_row(question, candidate, incumbent) for question in questions]
    scored = [
        i
        for i, each in enumerate(questions)
        if each.key in candidate.answers and (incumbent is None or each.key in incumbent.answers)
    ]
    if not scored:
        why = next((row.error for row in rows if row.error), "the rows hold nothing to ask")
        raise StateConflict(
            f"none of {len(questions)} rows was answered, the first because {why}; see the engine's log, then retry",
            reason=errors.ERROR_REASON_ENGINE_FAILED,
        )
    report = evaluator.Report(
        rows_scored=len({questions[i].row for i in scored}), rows_failed=len({row.row for row in rows if row.error})
    )
    for name in names:
        asked = [i for i in scored if questions[i].kind == kind_of(name)]
        if asked:
            _score(report, name, [rows[i] for i in asked], incumbent is not None)
    return report, rows


def report_digest(report: evaluator.Report) -> str:
    """SHA-256 over the metrics and the rows of a report."""
    figures = [
        [[each.name, each.value, each.low, each.high, each.count] for each in metrics]
        for metrics in (report.metrics, report.incumbent_metrics)
    ]
    content = json.dumps([*figures, report.rows_scored, report.rows_failed, report.rows_digest])
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def write_rows(rows: Sequence[evaluator.EvaluationRow]) -> bytes:
    """The rows as JSON lines."""
    lines = (json.dumps(MessageToDict(row), ensure_ascii=False, sort_keys=True) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def read_rows(content: bytes) -> Iterator[evaluator.EvaluationRow]:
    """The rows out of JSON lines."""
    return (ParseDict(json.loads(line), evaluator.EvaluationRow()) for line in content.split(b"\n") if line)


def _score(report: evaluator.Report, name: str, rows: Sequence[evaluator.EvaluationRow], compared: bool) -> None:
    """Adds the figures of a metric to the report, and its scores to the rows."""
    references, answers = [row.reference for row in rows], [row.answer for row in rows]
    others = [row.incumbent_answer for row in rows] if compared else []
    try:
        metric = make(name, chain(references, answers, others))
    except Exception as error:
        raise _failed(name, f"raised {type(error).__name__}") from error
    measured = _measure(name, metric, answers, references)
    for row, statistics in zip(rows, measured, strict=True):
        row.scores[name] = _checked(name, metric.score_row(statistics))
    report.metrics.append(_figure(name, metric, measured))
    if compared:
        report.incumbent_metrics.append(_figure(name, metric, _measure(name, metric, others, references)))


def _row(question: Question, candidate: Given, incumbent: Given | None) -> evaluator.EvaluationRow:
    return evaluator.EvaluationRow(
        row=question.row,
        reference=question.reference,
        second=question.second,
        answer=_clean(question.cut(candidate.answers.get(question.key, ""))),
        incumbent_answer=_clean(question.cut(incumbent.answers.get(question.key, ""))) if incumbent else "",
        error=candidate.failed.get(question.key, ""),
    )


def _clean(text: str) -> str:
    """Lone surrogates, which an engine may send and UTF-8 cannot hold, as question marks."""
    return text.encode("utf-8", "replace").decode()


def _measure(name: str, metric: Metric, answers: Sequence[str], references: Sequence[str]) -> list[Statistics]:
    try:
        return [metric.measure(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    except Exception as error:
        raise _failed(name, f"raised {type(error).__name__}") from error


def _figure(name: str, metric: Metric, measured: Sequence[Statistics]) -> evaluator.Metric:
    value = _checked(name, metric.aggregate([math.fsum(column) for column in zip(*measured, strict=True)]))
    low, high = (_checked(name, bound) for bound in interval(metric, measured))
    return evaluator.Metric(name=name, value=value, low=low, high=high, count=len(measured))


def _checked(name: str, value: float) -> float:
    """The value, when it is a score at all."""
    if not -ROUNDING <= value <= 1 + ROUNDING:  # not a number is in no range
        raise _failed(name, f"gave {value}")
    return min(max(value, 0.0), 1.0)


def _failed(name: str, what: str) -> MetricFailed:
    return MetricFailed(f"metric `{name}` {what}, which is no score; leave it out of the suite, or repair it and retry")
