"""`sluice models export|pull` and `sluice jobs pull`: versions in another form, and weights out of the suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import completion, exits, jobs, live, models, screen, words
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    from sluice.trainer import v1 as trainer

FEW_BITS, NEW = "Weights of few bits (gptq, awq; bits also gguf)", "The version that merged, gptq and awq become"
#: What an export says of itself, in this order.
MEASURED = (
    *("size_ratio", "log_prob_drift", "top1_agreement", "max_abs_difference", "vector_cosine"),
    *("vector_cosine_least", "recall_at_10", "documents", "checked_shapes"),
)
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Write below this folder, in task-type=<type>/<job>/.", file_okay=False),
]


def register() -> None:
    """Adds the commands to those of `sluice models` and `sluice jobs`."""
    command(models.app, "export")(export)
    command(models.app, "pull")(pull)
    command(jobs.app, "pull")(pull_job)


def export(
    session: Session,
    version: models.Version,
    format: Annotated[
        str,
        typer.Option(
            help="merged (an adapter into its base), gptq, awq: served as a version; onnx, gguf, faiss: to take away."
        ),
    ],
    rows: Annotated[
        str,
        typer.Option(
            help="What calibrates and measures, of faiss the documents: bank-intents@3. Without it, the rows that the "
            "version was trained on.",
            autocompletion=completion.datasets,
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Follow it, then fetch it below this folder, in task-type=<type>/<job>/."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the job until it is over.")] = True,
    bits: Annotated[int | None, typer.Option(help="4; gguf: 8 or 16.", rich_help_panel=FEW_BITS)] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Weights with one scale: 32, 64 or 128.", rich_help_panel=FEW_BITS)
    ] = None,
    calibration_rows: Annotated[
        int | None, typer.Option(min=1, help="Of the split train.", rich_help_panel=FEW_BITS)
    ] = None,
    index: Annotated[str, typer.Option(help="Of faiss: flat (exact) or hnsw.")] = "",
    precision: Annotated[str, typer.Option(help="Of merged: float32 or bfloat16; without it, the base's.")] = "",
    max_length: Annotated[int | None, typer.Option(min=1, help="Longest row in tokens.")] = None,
    model: Annotated[str, typer.Option(help="Without it, that of the source.", rich_help_panel=NEW)] = "",
    endpoint: Annotated[str, typer.Option(help="Without it, that of the source.", rich_help_panel=NEW)] = "",
    gate_policy: Annotated[str, typer.Option(help="Without it, that of the source.", rich_help_panel=NEW)] = "",
) -> int:
    """Write a version in another form, and measure on held-out rows what that changed."""
    from sluice.client.exports import SERVED

    told: dict[str, Any] = {
        name: value
        for name, value in {
            **{"rows": rows, "bits": bits, "group_size": group_size, "calibration_rows": calibration_rows},
            **{"index": index, "precision": precision, "max_length": max_length},
            **{"model": model, "endpoint": endpoint, "gate_policy": gate_policy},
        }.items()
        if value
    }
    with session.traced("models export"):
        job = session.client.models.export(version, format, **told)  # type: ignore[arg-type]  # said if it is none
    name = words.brief(job.name)
    if not watch and output is None:
        screen.fields(session, job, {"job": name, "exports": words.brief(job.spec.base_model_version)})
        screen.hint(session, f"follow it: sluice jobs watch {name}")
        return exits.OK
    last = _follow(session, job.name)
    if not last.HasField("result"):
        exits.complain(last.failure.message or f"the job ended as {words.job_state(last.state)}")
        return exits.FAILED
    if not session.json:
        screen.fields(session, last, _measured(last))
    if output is not None:
        _pull_job(session, name, output)
    if format in SERVED:
        screen.hint(session, f"it is judged now: sluice gate explain {last.spec.model} --wait")
    elif output is None:
        screen.hint(session, f"fetch it: sluice jobs pull {name} --output FOLDER")
    return exits.OK


def pull(session: Session, version: models.Version, output: Output) -> None:
    """Fetch the files of a version, checked by their digests; what broke off goes on where it stopped."""
    with session.traced("models pull"), live.upload_bar(session, version) as progress:
        folder = session.client.models.pull(version, output, progress)
    _told(session, folder)


def pull_job(session: Session, job: jobs.Job, output: Output) -> None:
    """Fetch what a job left, such as an ONNX package; what broke off goes on where it stopped."""
    with session.traced("jobs pull"):
        _pull_job(session, job, output)


def _pull_job(session: Session, job: str, output: Path) -> None:
    with live.upload_bar(session, job) as progress:
        folder = session.client.jobs.pull(job, output, progress)
    _told(session, folder)


def _follow(session: Session, job: str) -> trainer.TrainingJob:
    pace = live.Pace()
    return live.follow(
        session,
        session.client.jobs.watch(job),
        view=lambda item: jobs.view(item, pace),
        line=jobs.line,
        left=f"the job goes on; `sluice jobs watch {words.brief(job)}` comes back to it",
    )


def _measured(job: trainer.TrainingJob) -> dict[str, str]:
    """What the export is and how far it is from its source."""
    result = job.result
    found = {name.replace("_", " "): f"{result.metrics[name]:.4g}" for name in MEASURED if name in result.metrics}
    if "size ratio" in found:
        found["size ratio"] += f" of the source in {result.environment.get('source_dtype', 'its own dtype')}"
    on = result.environment.get("measured_on", "")
    return {
        "job": words.brief(job.name),
        "exports": words.brief(job.spec.base_model_version),
        "as": result.environment.get("quantization", ""),
        **found,
        "measured on": f"{on} rows of {words.brief(job.spec.dataset_version)}" if on else "",
        "note": result.environment.get("tokenizer_note", ""),
        "files": words.digest(result.artifact.digest),
    }


def _told(session: Session, folder: Path) -> None:
    if session.json:
        screen.emit({"folder": str(folder)})
    else:
        screen.put(screen.cell(str(folder)))
