"""`sluice train`: one job from flags, from a file, or from both; the recipe's defaults are the recipe's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import completion, exits, jobs, plans, screen, words
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    from sluice.trainer import v1 as trainer

TUNER, OPTIMIZATION, SHAPE = "What is trained", "Optimization", "A new model (pretrain without --base)"
DEVICES, PLAN = "Several devices", "A plan in place of a job"

NUMBER = re.compile(r"-?\d+(\.\d*)?(e-?\d+)?")


def register(app: typer.Typer) -> None:
    """Adds `train`."""
    command(app, "train")(train)


def train(
    session: Session,
    dataset: Annotated[
        str,
        typer.Option(
            help="The rows: bank-intents@3, or bank-intents for the newest.", autocompletion=completion.datasets
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="The model that the result becomes a version of.")] = "",
    base: Annotated[str, typer.Option(help="What to start from: bank-base@1, bank-bot@stable, qwen/Qwen-7B.")] = "",
    task_type: Annotated[str, typer.Option(help="Without it, that of the dataset.")] = "",
    endpoint: Annotated[str, typer.Option(help="What the version is for; without it, the id of the model.")] = "",
    gate_policy: Annotated[str, typer.Option(help="Without it, the one of the task type.")] = "",
    seed: Annotated[int | None, typer.Option(help="Of everything random; without it, 0.")] = None,
    display_name: Annotated[str, typer.Option("--name", help="What people call the job.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="A TrainingJobSpec as YAML, fields as in the contract; flags win over it.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it is over.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights: --tuner full.", rich_help_panel=TUNER)
    ] = False,
    tuner: Annotated[
        str,
        typer.Option(
            help="lora, qlora, full, adalora, vera, oft or ia3; without it, the recipe's. What they can be told: "
            "--set oft_block_size=16.",
            rich_help_panel=TUNER,
        ),
    ] = "",
    lora_rank: Annotated[int | None, typer.Option(min=1, rich_help_panel=TUNER)] = None,
    lora_alpha: Annotated[float | None, typer.Option(min=0, rich_help_panel=TUNER)] = None,
    lora_variant: Annotated[
        str | None, typer.Option(help="rslora, dora, pissa, olora or lora_plus.", rich_help_panel=TUNER)
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(help="Hold the frozen base as nf4 or int8 (QLoRA).", rich_help_panel=TUNER)
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="adamw, adamw_8bit, paged_adamw_8bit (on a GPU), adafactor; with --full also galore, apollo, lomo.",
            rich_help_panel=OPTIMIZATION,
        ),
    ] = None,
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
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Submit nothing; say what memory, time and disk it would take.", rich_help_panel=PLAN
        ),
    ] = False,
    device: Annotated[
        str, typer.Option("--on", help="cpu, a100-80gb, …; without it, the trainer's own pool.", rich_help_panel=PLAN)
    ] = "",
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes with a device each, on one host.", rich_help_panel=DEVICES)
    ] = None,
    sharding: Annotated[
        str,
        typer.Option(
            help="ddp, zero1, zero2, zero3 or fsdp, with --devices. More of it: --set sequence_parallel_size=2.",
            rich_help_panel=DEVICES,
        ),
    ] = "",
    tokens_per_s: Annotated[
        float, typer.Option(min=0, help="Of one device, measured with this model.", rich_help_panel=PLAN)
    ] = 0.0,
    tflops: Annotated[
        float, typer.Option(min=0, help="What one device reaches; without it, its data sheet's.", rich_help_panel=PLAN)
    ] = 0.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Anything else that the recipe takes: --set beta=0.2.")
    ] = None,
) -> int:
    """Submit a training job.

    What it leaves becomes a version of the model, is judged, passes the gate or not, and is rolled out: all by itself.
    """
    from kit.rpc.errors import Invalid

    if plan and watch:
        raise Invalid("--plan submits nothing, so there is nothing to --watch; leave one of them out")
    given: dict[str, Any] = {
        "tuner": tuner or ("full" if full else None),
        "lora_rank": lora_rank,
        "lora_alpha": lora_alpha,
        "lora_variant": lora_variant,
        "quantization": quantization,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_steps": max_steps,
        "epochs": epochs,
        "max_length": max_length,
        "hidden_size": hidden_size,
        "layers": layers,
        "heads": heads,
        "vocab_size": vocab_size,
        "devices": None if plan else devices,  # a plan may be for more than there are
        "sharding": None if plan else sharding or None,
    }
    told = {key: value for key, value in given.items() if value is not None}
    told |= _settings(settings or [])
    with session.traced("train"):
        if file:
            over = {"dataset": dataset, "model": model, "base": base, "endpoint": endpoint}
            over |= {"gate_policy": gate_policy, "task_type": task_type}
            spec = _from_file(session, file, over, seed, told)
            if plan:
                return plans.show(session, spec, device, devices or 0, sharding, tokens_per_s, tflops)
            job = session.client.jobs.create(spec, display_name)
        elif plan and dataset:
            names: dict[str, Any] = {"base": base, "endpoint": endpoint, "task_type": task_type}
            names["gate_policy"] = gate_policy
            spec = session.client.spec(dataset=dataset, model=model or "planned", **names, **told)
            return plans.show(session, spec, device, devices or 0, sharding, tokens_per_s, tflops)
        elif plan:
            raise Invalid("--dataset is missing; a plan needs it, or --file spec.yaml")
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


def _settings(given: list[str]) -> dict[str, Any]:
    """Each `name=value` as a word or the number that it is. Raises Invalid."""
    from kit.rpc.errors import Invalid

    told: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not value:
            raise Invalid(f"`--set {each}` is not name=value; write it as in `--set beta=0.2`")
        number = float(value) if NUMBER.fullmatch(value) else {"true": True, "false": False}.get(value, value)
        told[name.replace("-", "_")] = int(number) if isinstance(number, float) and number.is_integer() else number
    return told


def _from_file(
    session: Session, file: Path, over: dict[str, str], seed: int | None, told: dict[str, Any]
) -> trainer.TrainingJobSpec:
    from sluice.client import mirrors, specs

    if mirrors.is_source_id(over["base"]):
        over["base"] = session.client.models.version(over["base"]).name
    spec = specs.read_spec(file, session.client.project, over)
    if seed is not None:
        spec.seed = seed
    if told or not spec.WhichOneof("recipe"):
        recipe = spec.WhichOneof("recipe") or session.client.recipe(spec.task_type)
        specs.fill_recipe(spec, recipe, told)
        specs.expand_models(spec, session.client.project)
    return spec
