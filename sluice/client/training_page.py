"""A training job as one HTML file with curves, without scripts and without anything fetched; it asks no service."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from sluice.rows.profile.report import PlotsMissingError
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

#: The curves, in order; what no step has is left out.
TITLES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "tokens_per_s": "Tokens a second",
}
#: Large numbers at the top.
FIGURES = {
    "final_loss": "final loss",
    "eval_loss": "held-out loss",
    "steps": "steps",
    "tokens_per_s": "tokens a second",
    "peak_rss_mb": "peak memory, MB",
}
#: A curve of more points shows no more.
MOST_POINTS = 2000


class Curve(NamedTuple):
    """A curve as it is drawn."""

    title: str
    plot: Any
    last: str
    held_out: bool
    wide: bool


def training_page(job: trainer.TrainingJob, steps: Sequence[trainer.TrainingStep]) -> str:
    """The page; the same input gives the same bytes. PlotsMissingError where the extra `report` is not installed."""
    try:
        from jinja2 import Environment, StrictUndefined

        curves = _curves(steps)
    except ModuleNotFoundError as error:
        raise PlotsMissingError("the report needs matplotlib and jinja2; install `sluice[report]`") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(resources.files(__package__).joinpath("training_page.html").read_text("utf-8"))
    spec, result = job.spec, job.result
    state = types.JobState.Name(job.state).removeprefix("JOB_STATE_")
    digests = {
        "weights": result.artifact.digest,
        "dataset": result.dataset_digest,
        "base model": result.base_digest,
        "chat template": result.environment.get("template", ""),
        "package lock": result.environment.get("lock", ""),
    }
    return template.render(
        title=job.display_name or spec.model,
        subtitle=f"{spec.task_type} job {job.name.rsplit('/', 1)[-1]}, {state}",
        style=_style(),
        figures=[(said, f"{result.metrics[name]:.5g}") for name, said in FIGURES.items() if name in result.metrics],
        curves=curves,
        tables=[
            ("Asked for", _spec_rows(spec)),
            ("Trained with", sorted(result.settings.items())),
            ("Measured", [(name, f"{value:.6g}") for name, value in sorted(result.metrics.items())]),
            ("Ran on", sorted(result.environment.items())),
            ("Digests", [(name, digest) for name, digest in digests.items() if digest]),
        ],
    )


def _curves(steps: Sequence[trainer.TrainingStep]) -> list[Curve]:
    from markupsafe import Markup

    from sluice.rows.profile.plots import curves

    found = []
    for name, title in TITLES.items():
        trained, held_out = (_points(steps, name, evaluation) for evaluation in (False, True))
        if trained:
            lines = [trained, held_out] if held_out else [trained]
            wide = name == "loss"
            plot = Markup(curves(lines, f"curve-{name}", wide=wide))  # our own, and all text in it is digits
            found.append(Curve(title, plot, f"{trained[-1][1]:.4g}", bool(held_out), wide))
    return found


def _points(steps: Sequence[trainer.TrainingStep], name: str, evaluation: bool) -> list[tuple[float, float]]:
    chosen = [step for step in steps if step.evaluation == evaluation and name in step.figures]
    every = max(1, -(-len(chosen) // MOST_POINTS))
    shown = chosen[::every] + (chosen[-1:] if (len(chosen) - 1) % every else [])
    return [(float(step.step), step.figures[name]) for step in shown]


def _spec_rows(spec: trainer.TrainingJobSpec) -> list[tuple[str, str]]:
    from google.protobuf.json_format import MessageToDict

    told = MessageToDict(spec, preserving_proto_field_name=True)
    flat: dict[str, str] = {}
    for name, value in told.items():
        inner = value if isinstance(value, dict) and value else {"": value}
        flat |= {
            f"{name}.{key}" if key else name: "with its defaults" if each == {} else str(each)
            for key, each in inner.items()
        }
    return list(flat.items())


def _style() -> Any:
    """The style of the report on datasets, which is the style of all our pages."""
    from markupsafe import Markup

    page = resources.files("sluice.rows.profile").joinpath("report.html").read_text("utf-8")
    found = re.search(r"<style>.*?</style>", page, re.DOTALL)
    return Markup(found[0] if found else "")  # our own
