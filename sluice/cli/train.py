"""`sluice train`: one job from flags, from a file, or from both; the recipe's defaults are the recipe's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import exits, jobs, screen, words
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    from sluice.trainer import v1 as trainer

LORA, OPTIMIZATION, SHAPE = "LoRA", "Optimization", "A new model (pretrain without --base)"


def register(app: typer.Typer) -> None:
    """Adds `train`."""
    command(app, "train")(train)


def train(
    session: Session,
    dataset: Annotated[str, typer.Option(help="The rows: bank-intents@3, or bank-intents for the newest.")] = "",
    model: Annotated[str, typer.Option(help="The model that the result becomes a version of.")] = "",
    base: Annotated[str, typer.Option(help="The version to start from: bank-base@1, bank-bot@stable.")] = "",
    task_type: Annotated[str, typer.Option(help="Without it, that of the dataset.")] = "",
    endpoint: Annotated[str, typer.Option(help="What the version is for; without it, the id of the model.")] = "",
    gate_policy: Annotated[str, typer.Option(help="Without it, the one of the task type.")] = "",
    seed: Annotated[int | None, typer.Option(help="Of everything random; without it, 0.")] = None,
    display_name: Annotated[str, typer.Option("--name", help="What people call the job.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="A TrainingJobSpec as YAML, fields as in the contract; flags win over it.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it is over.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of an adapter.")] = False,
    lora_rank: Annotated[int | None, typer.Option(min=1, rich_help_panel=LORA)] = None,
    lora_alpha: Annotated[float | None, typer.Option(min=0, rich_help_panel=LORA)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, rich_help_panel=OPTIMIZATION)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, rich_help_panel=OPTIMIZATION)] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, rich_help_panel=OPTIMIZATION)] = None,
    epochs: Annotated[float | None, typer.Option(min=0, rich_help_panel=OPTIMIZATION)] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Longest row in tokens.", rich_help_panel=OPTIMIZATION)
    ] = None,
    hidden_size: Annotated[int | None, typer.Option(min=16, rich_help_panel=SHAPE)] = None,
    layers: Annotated[int | None, typer.Option(min=1, rich_help_panel=SHAPE)] = None,
    heads: Annotated[int | None, typer.Option(min=1, rich_help_panel=SHAPE)] = None,
    vocab_size: Annotated[int | None, typer.Option(min=300, rich_help_panel=SHAPE)] = None,
) -> int:
    """Submit a training job.

    What it leaves becomes a version of the model, is judged, passes the gate or not, and is rolled out: all by itself.
    """
    from kit.rpc.errors import Invalid

    given: dict[str, Any] = {
        "tuner": "full" if full else None,
        "lora_rank": lora_rank,
        "lora_alpha": lora_alpha,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_steps": max_steps,
        "epochs": epochs,
        "max_length": max_length,
        "hidden_size": hidden_size,
        "layers": layers,
        "heads": heads,
        "vocab_size": vocab_size,
    }
    told = {key: value for key, value in given.items() if value is not None}
    with session.traced("train"):
        if file:
            over = {"dataset": dataset, "model": model, "base": base, "endpoint": endpoint}
            over |= {"gate_policy": gate_policy, "task_type": task_type}
            spec = _from_file(session, file, over, seed, told)
            job = session.client.jobs.create(spec, display_name)
        elif not dataset or not model:
            missing = "--model" if dataset else "--dataset"
            raise Invalid(f"{missing} is missing; a job needs --dataset and --model, or --file spec.yaml")
        else:
            job = session.client.train(
                dataset=dataset,
                model=model,
                base=base,
                endpoint=endpoint,
                gate_policy=gate_policy,
                task_type=task_type,
                seed=seed or 0,
                display_name=display_name,
                **told,
            )
    if watch:
        screen.hint(session, f"job {words.brief(job.name)}")
        return jobs.watch_job(session, job.name)
    fields = {"job": job.name.rsplit("/", 1)[-1], "state": words.job_state(job.state), "model": job.spec.model}
    screen.fields(session, job, fields)
    screen.hint(session, f"follow it: sluice jobs watch {words.brief(job.name)}")
    return exits.OK


def _from_file(
    session: Session, file: Path, over: dict[str, str], seed: int | None, told: dict[str, Any]
) -> trainer.TrainingJobSpec:
    from sluice.client import specs

    spec = specs.read_spec(file, session.client.project, over)
    if seed is not None:
        spec.seed = seed
    if told or not spec.WhichOneof("recipe"):
        recipe = spec.WhichOneof("recipe") or session.client.recipe(spec.task_type)
        specs.fill_recipe(spec, recipe, told)
    return spec
