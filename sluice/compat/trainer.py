"""``SwiftTrainer(args, train_dataset=…).train()`` as a job of the suite, waited for; nothing is trained here."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import id_of
from sluice.client import Client, exports
from sluice.client.names import short
from sluice.compat import bases, output, rows
from sluice.compat.arguments import MultiModalConfig, TrainingArguments
from sluice.compat.said import say
from sluice.evaluator import v1 as evaluator
from sluice.registry import v1 as registry
from sluice.rows.names import SPLITS
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

#: How often a line says how far a job is.
SAID_EVERY_S = 10.0
#: How long the version of a job that succeeded may take to be there.
VERSION_S = 60.0


@dataclass(frozen=True)
class TrainOutput:
    """What ``train()`` gives: the figures, and where everything is."""

    global_step: int
    training_loss: float
    metrics: dict[str, float] = field(repr=False)
    folder: Path
    model_version: str


class SwiftTrainer:
    """Submits a job to the suite and brings back what it leaves.

    Address, key and project are looked up as by ``sluice.Client``; the key needs the roles `algorithm` for the job,
    `engineering` for a base on this machine, and `downloader` for the weights.
    """

    def __init__(
        self,
        args: TrainingArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        model: Any = None,
        client: Client | None = None,
    ) -> None:
        """``train_dataset`` is rows, a file, or a dataset's name; without it, ``args.dataset`` says which.

        Rows in memory become the newest version of the dataset that ``args.dataset`` names, once for the same rows.
        ``eval_dataset`` is asked of the model once it is trained, through the engine that would serve it. Raises
        Invalid for a model in this process, which the suite could not have.
        """
        if model is not None:
            raise Invalid(
                f"model is a {type(model).__name__} in this process, and the suite trains one of its own; name it with "
                "`model_name_or_path`, and its adapter with lora_rank, lora_alpha and target_modules"
            )
        if not isinstance(args, TrainingArguments):
            raise Invalid(f"args is a {type(args).__name__}; give the TrainingArguments of sluice.compat")
        if train_dataset is None and not args.dataset:
            raise Invalid("there are no rows to train on; give train_dataset, or `dataset` to TrainingArguments")
        named = isinstance(train_dataset, str | Path) and str(train_dataset) != str(args.dataset)
        if args.dataset and train_dataset is not None and (named or Path(args.dataset).is_file()):
            raise Invalid(f"`{args.dataset}` and train_dataset both say which rows to train on; give one")
        self.args = args
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.job = trainer.TrainingJob()
        self.version = registry.ModelVersion()
        self._given = client

    def train(self) -> TrainOutput:
        """Runs the job to its end and writes what it left below ``output_dir``; Ctrl-C leaves it running.

        Raises StateConflict for a job that did not succeed, RowsRefused for rows that are wrong, Denied, Invalid.
        """
        client = self._client()
        base = self._base(client)
        dataset = self._rows(client)
        self.job = client.train(
            dataset=dataset,
            model=self.args.model,
            base=base,
            task_type=self.args.task_type,
            endpoint=self.args.endpoint,
            gate_policy=self.args.gate_policy,
            seed=self.args.seed,
            **self.args.hyperparameters,
        )
        self.job = self._followed(client)
        folder = output.write_record(client, self.job, self.args.output_dir)
        _check_succeeded(self.job)
        self.version = self._version(client)
        output.write_weights(client, self.version, self.args.output_dir)
        if self.eval_dataset is not None:
            self.evaluate()
        say(f"{short(self.version.name)} is in {folder}; the gate judges it: sluice gate explain {self.args.model}")
        metrics = dict(self.job.result.metrics)
        steps = int(metrics.get("steps", self.job.progress.done))
        return TrainOutput(steps, metrics.get("final_loss", float("nan")), metrics, folder, self.version.name)

    def evaluate(self, eval_dataset: Any = None) -> dict[str, dict[str, float]]:
        """Asks the trained model all rows of ``eval_dataset``; figures by split, and in `evaluation.json`.

        The suite puts rows into splits by a hash, here as well. Raises StateConflict before ``train()``.
        """
        client, version = self._client(), self._trained()
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        if given is None:
            raise Invalid("there are no rows to ask; give eval_dataset")
        name, kind = f"{self.args.model}-eval-rows", self.args.task_type
        dataset = rows.version_of(client, given, name=name, task_type=kind, assets=self.args.assets)
        found = client.datasets.version(dataset)
        metrics = client.task_types.get(kind).metrics
        asked = [
            client.evaluations.create(
                version.name, evaluator.Suite(dataset_version=found.name, split=split, metrics=metrics)
            )
            for split in SPLITS
            if found.split_rows[split]
        ]
        figures = {each.suite.split: _figures(_ended(client, each)) for each in asked}
        folder = exports.folder_of(self.args.output_dir, kind, self.job.name)
        (folder / "evaluation.json").write_text(json.dumps(figures, indent=1), "utf-8")
        return figures

    def save_model(self, output_dir: str | Path = "", format: str = "safetensors") -> Path:
        """Writes the trained model in a form below ``output_dir``, else that of the arguments; returns the folder.

        `safetensors` are the weights as they were trained; `merged`, `gptq`, `awq`, `onnx`, `gguf` and `faiss` are
        made by a job of the suite, which is waited for. Raises StateConflict before ``train()`` and for a job that
        failed, Invalid for a form that is not known or not possible.
        """
        client, version = self._client(), self._trained()
        target = Path(output_dir or self.args.output_dir)
        if format == "safetensors":
            return output.write_weights(client, version, target)
        job = client.models.export(version.name, format)  # type: ignore[arg-type]  # said if it is none
        say(f"job {id_of(job.name)} writes {short(version.name)} as {format} in the suite at {client.address}")
        _check_succeeded(client.jobs.wait(job.name))
        return client.jobs.pull(job.name, target)

    def _client(self) -> Client:
        self._given = self._given or Client()
        return self._given

    def _trained(self) -> registry.ModelVersion:
        if not self.version.name:
            raise StateConflict("nothing was trained yet; call train() before")
        return self.version

    def _base(self, client: Client) -> str:
        given = self.args.model_name_or_path
        return bases.version_of(client, given, task_type="sft") if given else ""

    def _rows(self, client: Client) -> str:
        """The dataset version; rows in memory become the dataset that ``args.dataset`` names."""
        given, named = self.train_dataset, str(self.args.dataset)
        name = Path(named).name.partition(".")[0] or f"{self.args.model}-rows"
        kind, assets = self.args.task_type, self.args.assets
        return rows.version_of(
            client, self.args.dataset if given is None else given, name=name, task_type=kind, assets=assets
        )

    def _followed(self, client: Client) -> trainer.TrainingJob:
        uuid, said_at = id_of(self.job.name), float("-inf")
        say(f"job {uuid} trains {self.args.model} in the suite at {client.address}")
        found = self.job
        try:
            for found in client.jobs.watch(self.job.name):
                if time.monotonic() - said_at > SAID_EVERY_S and found.progress.done:
                    said_at = time.monotonic()
                    loss = found.progress.figures.get("loss")
                    told = "" if loss is None else f", loss {loss:.4f}"
                    say(f"step {found.progress.done} of {found.progress.total}{told}")
        except KeyboardInterrupt:
            say(f"the job goes on; follow it: sluice jobs watch {uuid}, stop it: sluice jobs cancel {uuid}")
            raise
        return found

    def _version(self, client: Client) -> registry.ModelVersion:
        """The version that the job became, which an event makes."""
        deadline = time.monotonic() + VERSION_S
        while not (found := client.models.versions(filter=f'training_job = "{self.job.name}"', limit=1)):
            if time.monotonic() > deadline:
                raise StateConflict(f"job {id_of(self.job.name)} succeeded and became no version; see `sluice doctor`")
            time.sleep(0.2)
        return found[0]


class MultiModalTrainer(SwiftTrainer):
    """The same for models that see or hear: ``MultiModalTrainer(MultiModalConfig(…)).train()``."""

    def __init__(self, config: MultiModalConfig, **more: Any) -> None:
        super().__init__(config, **more)


def _check_succeeded(job: trainer.TrainingJob) -> None:
    """Raises StateConflict for a job that ended otherwise."""
    if job.state != types.JOB_STATE_SUCCEEDED:
        state, uuid = types.JobState.Name(job.state).removeprefix("JOB_STATE_"), id_of(job.name)
        raise StateConflict(
            f"job {uuid} is {state}: {job.failure.message or 'it was stopped'}; its log: sluice jobs logs {uuid}"
        )


def _ended(client: Client, asked: evaluator.Evaluation) -> evaluator.Evaluation:
    found = list(client.evaluations.watch(asked.name))[-1]
    if found.state != types.JOB_STATE_SUCCEEDED:
        raise StateConflict(f"the evaluation of {asked.model_version} did not end well: {found.failure.message}")
    return found


def _figures(evaluation: evaluator.Evaluation) -> dict[str, float]:
    found = {each.name: each.value for each in evaluation.report.metrics}
    return {**found, "rows": float(evaluation.report.rows_scored)}


#: The name that transformers has for it.
Trainer = SwiftTrainer
