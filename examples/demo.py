"""``make demo``: the main job of the suite, start to end, through the public API only.

A base model is trained, judged and deployed; then a dataset becomes an adapter, which is judged, let through the
gate, and takes the traffic over step by step; then it answers. Every line below could stand in your own program.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.tree import Tree

from examples.corpus_from_rows import corpus_from_rows
from examples.screen import Bars, Traffic
from kit.rpc.errors import Fault, Invalid
from sluice import Client
from sluice.client.imports import model_files
from sluice.evaluator import v1 as evaluator
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types

EXAMPLES = Path(__file__).resolve().parent
ENDPOINT = "assistant"
#: A base small enough to be made here in a minute. It knows the words of a bank's desk, and not the task.
BASE = {
    "hidden_size": 192, "layers": 4, "heads": 4, "kv_heads": 2, "vocab_size": 768, "max_position_embeddings": 512,
    "learning_rate": 3e-3, "batch_size": 32, "max_steps": 200, "max_length": 64,
}  # fmt: skip
#: Rows of more tokens than max_length are left out; yours may be longer than those of the bank.
LORA = {"lora_rank": 32, "lora_alpha": 64, "learning_rate": 5e-3, "batch_size": 32, "max_steps": 200, "max_length": 512}
PLAN = ((10, 3, 12), (50, 3, 12), (100, 0, 0))

console = Console()


def main() -> int:
    """Parses the command line and runs the demo; 0 also when the gate says FAIL, which is an outcome and no error."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--data", type=Path, default=EXAMPLES / "bank-intents.jsonl", help="rows of your own")
    parser.add_argument("--base", type=Path, help="a model folder to start from instead of a toy")
    parser.add_argument("--home", type=Path, default=Path(".sluice/demo"), help="where the suite keeps its files")
    parser.add_argument("--keep", action="store_true", help="leave the suite running at the end")
    options = parser.parse_args()
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal too must leave no suite behind
        signal.signal(number, signal.default_int_handler)
    try:
        look_at(options.data, options.base)
        with suite(options.home.resolve(), options.keep) as about:
            Demo(about, options.data, options.base).run()
    except Fault as fault:
        console.print(f"[red]error:[/] {fault}")
        return 1
    except KeyboardInterrupt:
        return 130
    console.print(
        f"\n[dim]{time.monotonic() - started:.0f} s in all. `sluice up --home {options.home}` brings it back.[/]"
    )
    return 0


def look_at(data: Path, base: Path | None) -> None:
    """Raises Invalid for files that are not there, before anything is started or emptied for them."""
    if not data.is_file():
        raise Invalid(f"there is no file `{data}`; give the path of a file with rows, such as DATA=rows.jsonl")
    if base:
        model_files(base)


@contextmanager
def suite(home: Path, keep: bool) -> Iterator[dict[str, Any]]:
    """A suite of its own, on free ports, with an empty home; stopped at the end unless it is to be kept."""
    services = [sys.executable, "-m", "services"]
    if home.exists():
        subprocess.run([*services, "down", "--home", home], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home)
    console.rule("[bold]1  The suite")
    up = [*services, "up", "--home", home, "--grpc-port", "0", "--http-port", "0", "--detach", "--json"]
    done = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    about = json.loads(done.stdout)
    console.print(
        "five services on embedded NATS, SQLite and encrypted blobs: "
        f"gRPC {about['address']}, OpenAI {about['http']}/v1"
    )
    try:
        yield about
    finally:
        if not keep:
            console.print("[dim]stopping the suite …[/]")
            subprocess.run([*services, "down", "--home", home], check=False, stdout=subprocess.DEVNULL)


class Demo:
    """The steps of the main job, in order."""

    def __init__(self, about: dict[str, Any], data: Path, base: Path | None) -> None:
        self.client = Client(about["address"])
        self.about = about
        self.data = data
        self.base = base
        self.rows = ""

    def run(self) -> None:
        """All of it."""
        with self.client:
            plan = gateway.RolloutPlan()
            for weight, hold_s, requests in PLAN:
                plan.steps.add(weight_percent=weight, min_requests=requests).hold.FromSeconds(hold_s)
            self.client.endpoints.create(ENDPOINT, "chat", plan)

            console.rule("[bold]2  Data")
            self.rows = self.upload("rows", self.data, "sft")

            console.rule("[bold]3  A base model, which serves first")
            base = self.import_base() if self.base else self.train_base()
            if not self.follow(base):
                return

            console.rule("[bold]4  Your rows become an adapter")
            job = self.client.train(
                dataset=self.rows, model="adapter", base=short(base), endpoint=ENDPOINT, task_type="sft", **LORA
            )
            adapter = self.version_of(self.watch(job.name, "training the adapter"))

            console.rule("[bold]5  Judged, gated, let in")
            if self.follow(adapter, traffic=True):
                console.rule("[bold]6  Served")
                self.ask()
            self.lineage(adapter)

    def upload(self, name: str, path: Path, task_type: str) -> str:
        """Uploads a file; returns the version it became, such as ``rows@1``."""
        with Bars(console) as bars:
            bar = bars.add(f"uploading {path.name}")
            version = self.client.datasets.upload(
                name=name, path=path, task_type=task_type, progress=lambda at: bar.to(at.done, at.total, at.phase)
            )
            bar.finish(f"{version.row_count} rows")
        return short(version.name)

    def train_base(self) -> str:
        """Makes a toy base from text that does not teach the task; returns its version."""
        with tempfile.TemporaryDirectory() as folder:
            corpus = EXAMPLES / "bank-corpus.jsonl"
            if self.data.parent != EXAMPLES:
                corpus = Path(folder) / "corpus.jsonl"
                texts = corpus_from_rows(self.client.datasets.read(self.rows, "train"))
                corpus.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts))
                console.print(
                    "[yellow]no base was given: a toy is made that learns the words of your file and little else[/]"
                )
            text = self.upload("text", corpus, "pretrain")
        job = self.client.train(dataset=text, model="base", endpoint=ENDPOINT, task_type="pretrain", **BASE)
        return self.version_of(self.watch(job.name, "training a base from nothing"))

    def import_base(self) -> str:
        """Registers the user's base; returns its version."""
        assert self.base
        with Bars(console) as bars:
            bar = bars.add(f"importing {self.base.name}")
            version = self.client.models.import_folder(
                "base",
                self.base,
                dataset=self.rows,
                endpoint=ENDPOINT,
                gate_policy="baseline",
                progress=lambda at: bar.to(at.done, at.total, at.phase),
            )
            bar.finish("stored")
        return version.name

    def watch(self, job: str, title: str) -> str:
        """Follows a training job to its end; returns its name."""
        with Bars(console) as bars:
            bar = bars.add(title)
            for snapshot in self.client.jobs.watch(job):
                at = snapshot.progress
                loss, speed = at.figures.get("loss"), at.figures.get("tokens_per_s", 0)
                figures = "" if loss is None else f"loss {loss:.3f}, {speed:.0f} tokens/s"
                bar.to(at.done, at.total, figures or types.JobState.Name(snapshot.state)[10:].lower())
        if snapshot.state != types.JOB_STATE_SUCCEEDED:
            raise SystemExit(f"error: {title}: {snapshot.failure.message}; `sluice jobs logs` says more")
        return job

    def version_of(self, job: str) -> str:
        """Waits for the version that the registry makes of a job by itself; returns its name."""
        while not (found := self.client.models.versions("-", filter=f'training_job = "{job}"')):
            time.sleep(0.1)
        return found[0].name

    def follow(self, version: str, traffic: bool = False) -> bool:
        """Follows a version through evaluation, gate and rollout, which nobody asks for; True when it serves."""
        evaluation = self.follow_evaluation(version)
        if evaluation.state != types.JOB_STATE_SUCCEEDED:
            console.print(f"[red]the evaluation failed:[/] {evaluation.failure.message}")
            return False
        show_report(evaluation)
        for snapshot in self.client.models.watch(version):
            if snapshot.state != registry.MODEL_VERSION_STATE_PENDING:
                break
        show_decision(snapshot)
        if snapshot.state != registry.MODEL_VERSION_STATE_APPROVED:
            meanwhile = "what served before goes on serving" if traffic else "nothing serves, so the demo ends here"
            console.print(f"[yellow]it gets no traffic; {meanwhile}[/]")
            if snapshot.gate_decision.verdict == registry.VERDICT_INCONCLUSIVE:
                console.print("[yellow]about one row in ten is kept to judge by: a larger file gives more of them[/]")
            return False
        return self.follow_rollout(version, traffic)

    def follow_evaluation(self, version: str) -> evaluator.Evaluation:
        """Follows the evaluation that a new version causes; returns how it ended."""
        while not (found := self.client.evaluations.list(filter=f'model_version = "{version}"')):
            time.sleep(0.1)
        with Bars(console) as bars:
            bar = bars.add(f"judging {short(version)}")
            for snapshot in self.client.evaluations.watch(found[0].name):
                at = snapshot.progress
                bar.to(at.done, at.total, at.phase or types.JobState.Name(snapshot.state)[10:].lower())
            bar.finish(types.JobState.Name(snapshot.state)[10:].lower())
        return snapshot

    def follow_rollout(self, version: str, traffic: bool) -> bool:
        """Follows the rollout that an approval causes, under made-up traffic where there is an incumbent."""
        while not (found := self.client.rollouts.list(ENDPOINT, filter=f'model_version = "{version}"')):
            time.sleep(0.1)
        key = self.client_key()
        splits = (self.client.datasets.read(self.rows, split, 50) for split in ("validation", "test"))
        questions = next(filter(None, ([row["messages"][:-1] for row in rows] for rows in splits)), [])
        with Bars(console) as bars, Traffic(self.about["http"], key, ENDPOINT, questions if traffic else []) as seen:
            bar = bars.add(f"rolling out {short(version)}")
            for snapshot in self.client.rollouts.watch(found[0].name):
                weight = snapshot.plan.steps[snapshot.step].weight_percent if snapshot.plan.steps else 0
                state = gateway.RolloutState.Name(snapshot.state)[14:].lower()
                bar.to(weight if state == "progressing" else 100 * (state == "promoted"), 100, f"{state} {seen}")
        console.print(
            f"[bold]{state}[/]: {snapshot.reason}" + (f"  [dim](answers by version: {seen})[/]" if traffic else "")
        )
        return bool(snapshot.state == gateway.ROLLOUT_STATE_PROMOTED)

    def client_key(self) -> str:
        """The key that applications use here."""
        from sluice.credentials import recall

        found = recall(self.about["address"], os.environ)
        assert found
        return found.api_key

    def ask(self) -> None:
        """Asks one held-out question through the official client, as any application would."""
        from openai import OpenAI

        (row,) = self.client.datasets.read(self.rows, "test", 1)
        *question, reference = row["messages"]
        openai = OpenAI(base_url=f"{self.about['http']}/v1", api_key=self.client_key())
        answer = openai.chat.completions.with_raw_response.create(
            model=ENDPOINT, messages=question, temperature=0, max_tokens=64
        )
        console.print(f"question   {question[-1]['content']}")
        console.print(f"answer     [bold]{answer.parse().choices[0].message.content}[/]")
        console.print(f"reference  {reference['content']}")
        console.print(f"served by  {short(answer.headers['x-sluice-version'])}")

    def lineage(self, version: str) -> None:
        """Shows where a version came from."""
        found = self.client.models.version(version)
        tree = Tree(f"[bold]{short(version)}[/]  {found.artifact.digest[:19]}…")
        judged = tree.add(f"evaluation {short(found.lineage.evaluation)}")
        job = judged.add(
            f"training job {short(found.lineage.training_job)}  "
            f"({found.lineage.recipe} on {short(found.base_model_version)})"
        )
        job.add(f"dataset version {short(found.lineage.dataset_version)}  {found.lineage.dataset_digest[:19]}…")
        console.print(tree)


def show_report(evaluation: evaluator.Evaluation) -> None:
    """One line a metric: the candidate, and the incumbent on the same rows."""
    others = {metric.name: metric.value for metric in evaluation.report.incumbent_metrics}
    for metric in evaluation.report.metrics:
        other = f"   incumbent {others[metric.name]:.3f}" if metric.name in others else ""
        console.print(
            f"  {metric.name:12} {metric.value:.3f}  [{metric.low:.3f}, {metric.high:.3f}]{other}", highlight=False
        )
    if evaluation.report.HasField("parity"):
        parity = evaluation.report.parity
        word = "as trained" if parity.passed else f"NOT as trained: {parity.first_difference}"
        difference = parity.max_log_probability_difference
        console.print(f"  served {word} ({parity.prompts} prompts, log-probabilities within {difference:.1e})")


def show_decision(version: registry.ModelVersion) -> None:
    """What the gate said and why."""
    verdict = registry.Verdict.Name(version.gate_decision.verdict)[8:]
    color = {"PASS": "green", "FAIL": "red"}.get(verdict, "yellow")
    console.print(f"gate [{color} bold]{verdict}[/]")
    for reason in version.gate_decision.reasons:
        console.print(f"  {reason}", highlight=False)


def short(name: str) -> str:
    """``adapter@2`` for a version of a model or dataset, else the last part of a resource name."""
    parts = name.split("/")
    return f"{parts[-3]}@{parts[-1]}" if len(parts) > 2 and parts[-2] == "versions" else parts[-1]


if __name__ == "__main__":
    sys.exit(main())
