"""A whole suite with fake engines and recipes, driven through the SDK as a user would; it asserts next to nothing."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil

from kit.rpc.errors import Unavailable
from services.gateway.engines.served import served_name
from sluice import Client
from sluice.client.evaluations import is_over as evaluation_is_over
from sluice.client.serving import is_over as rollout_is_over
from sluice.evaluator import v1 as evaluator
from sluice.gateway import v1 as gateway
from sluice.lifecycle import JOB, is_over
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from tests.suite import Suite

ENDPOINT = "assistant"
#: Stands in every row, so that it can be looked for where no row belongs.
MARK = "zanzibar"
#: Weight, least seconds, least requests of each step.
PLAN = ((10, 0.3, 5), (50, 0.3, 5), (100, 0, 0))
#: All that waits in the suite waits less than it would in production.
QUICK = {
    "SLUICE_RECONCILE_S": "2",
    "SLUICE_GATEWAY_HOST_POLL_S": "0.5",
    "SLUICE_GATEWAY_RECHECK_S": "1",
    "SLUICE_TRAINER_HEARTBEAT_S": "15",
}
#: The smallest model that an engine serves.
SMALL = {
    "hidden_size": 32, "layers": 1, "heads": 1, "vocab_size": 300, "max_position_embeddings": 64, "max_steps": 8,
}  # fmt: skip
PATIENCE_S = 60.0
T = TypeVar("T")


@dataclass
class Run:
    """Everything that one training job caused."""

    job: trainer.TrainingJob
    version: registry.ModelVersion
    evaluation: evaluator.Evaluation
    rollout: gateway.Rollout | None = None

    @property
    def names(self) -> list[str]:
        """The resources of the run."""
        return [each.name for each in (self.job, self.version, self.evaluation, self.rollout) if each is not None]


def until(look: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """What `look` gives as soon as that is true; services may be away meanwhile."""
    deadline = time.monotonic() + timeout_s
    seen: object = None
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
            seen = found
        except Unavailable as away:
            seen = away
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {timeout_s:.0f} s; last seen: {seen!r}")


def gone(look: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Returns as soon as `look` finds nothing any more."""
    left: object = None

    def nothing() -> bool:
        nonlocal left
        left = look()
        return not left

    try:
        until(nothing, what, timeout_s)
    except AssertionError:
        raise AssertionError(f"{what} did not go within {timeout_s:.0f} s: {left}") from None


class Pipeline:
    """What a user does with a suite, step by step; nothing is waited for longer than `patience_s`."""

    def __init__(self, suite: Suite, patience_s: float = PATIENCE_S) -> None:
        self.suite = suite
        self.patience_s = patience_s
        #: By dataset: task type and rows of what was uploaded.
        self.uploaded: dict[str, tuple[str, int]] = {}
        self.client = Client(suite.state["address"], suite.key)

    def create_endpoint(self) -> None:
        """The endpoint, with a plan that takes a second where production takes a minute."""
        self.client.endpoints.create(ENDPOINT, "chat", plan(*PLAN))

    def let_in_by(self, *steps: tuple[int, float, int]) -> None:
        """Changes the plan of the next rollouts."""
        self.client.endpoints.set_plan(ENDPOINT, plan(*steps))

    def upload(self, name: str, task_type: str, rows: int) -> str:
        """Uploads made-up rows; an adapter that echoes answers all of them right. Returns the version."""
        path = self.rows_of(name, task_type, rows)
        return str(self.client.datasets.upload(name=name, path=path, task_type=task_type).name)

    def rows_of(self, name: str, task_type: str, rows: int) -> Path:
        """A file of made-up rows, which is expected to become version 1 of the dataset `name`."""
        self.uploaded[name] = task_type, rows
        path = self.suite.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row(task_type, number)) + "\n" for number in range(rows)))
        return path

    def base(self, rows: int = 500, **parameters: Any) -> Run:
        """A base model, which serves first, and the rows that adapters learn."""
        text = self.upload("text", "pretrain", rows // 2)
        job = self.client.train(
            dataset=text, model="base", endpoint=ENDPOINT, task_type="pretrain", **{**SMALL, **parameters}
        )
        self.upload("rows", "sft", rows)
        return self.follow(job.name)

    def train(self, seed: int = 0, **parameters: Any) -> str:
        """Submits an adapter; the seed says what becomes of it (tests/fakes/pipeline_recipe.py). Returns the job."""
        wanted = {"dataset": "rows@1", "model": "adapter", "base": "base@1", "task_type": "sft", "max_steps": 8}
        return str(self.client.train(**{**wanted, "endpoint": ENDPOINT, "seed": seed, **parameters}).name)

    def follow(self, job: str) -> Run:
        """Everything a job caused, once nothing more happens by itself."""
        run = Run(self.end_of(job), self.version_of(job), evaluator.Evaluation())
        run.evaluation = self.evaluation_of(run.version.name)
        run.version = self.decided(run.version.name)
        if run.version.gate_decision.verdict == registry.VERDICT_PASS:
            run.rollout = until(
                lambda: self._rollout(run.version.name, rollout_is_over), "the end of the rollout", self.patience_s
            )
            # The registry hears of the rollout by an event.
            self.lineage_of(run)
        return run

    def end_of(self, job: str) -> trainer.TrainingJob:
        """The job once it is over."""

        def look() -> trainer.TrainingJob | None:
            found = self.client.jobs.get(job)
            return found if is_over(JOB, found.state) else None

        found = until(look, "the end of the job", self.patience_s)
        assert found is not None
        return found

    def version_of(self, job: str) -> registry.ModelVersion:
        """The version that the registry makes of a job by itself."""
        found = until(
            lambda: self.client.models.versions("-", filter=f'training_job = "{job}"'), "the version", self.patience_s
        )
        return found[0]

    def evaluation_of(self, version: str) -> evaluator.Evaluation:
        """The evaluation of a version once it is over."""

        def look() -> evaluator.Evaluation | None:
            found = self.client.evaluations.list(filter=f'model_version = "{version}"')
            return next(filter(evaluation_is_over, found), None)

        found = until(look, "the end of the evaluation", self.patience_s)
        assert found is not None
        return found

    def decided(self, version: str) -> registry.ModelVersion:
        """The version once the gate has spoken."""

        def look() -> registry.ModelVersion | None:
            found = self.client.models.version(version)
            return None if found.state == registry.MODEL_VERSION_STATE_PENDING else found

        found = until(look, "the gate's decision", self.patience_s)
        assert found is not None
        return found

    def at_weight(self, version: str, weight: int) -> gateway.Rollout:
        """The rollout of a version once it has that share or more."""

        def reached(rollout: gateway.Rollout) -> bool:
            if rollout.state != gateway.ROLLOUT_STATE_PROGRESSING:
                return False
            return bool(rollout.plan.steps[rollout.step].weight_percent >= weight)

        found = until(lambda: self._rollout(version, reached), f"a share of {weight} percent", self.patience_s)
        assert found is not None
        return found

    def lineage_of(self, run: Run) -> None:
        """Waits for the registry to know the rollout, and `stable` where it was promoted."""
        assert run.rollout is not None
        rollout = run.rollout

        def look() -> bool:
            run.version = self.client.models.version(run.version.name)
            if rollout.name not in run.version.lineage.rollouts:
                return False
            if rollout.state != gateway.ROLLOUT_STATE_PROMOTED:
                return True
            return self.stable(run.version.name.split("/")[3]) == run.version.version

        until(look, "the lineage of the version", self.patience_s)

    def stable(self, model: str) -> int:
        """The version that the alias `stable` of a model names; 0 for none."""
        return int(self.client.models.get(model).aliases.get("stable", 0))

    def route(self) -> dict[str, int]:
        """The share of each version in percent, by its short name."""
        found = self.client.endpoints.get(ENDPOINT).route
        return {short(arm.model_version): arm.weight_percent for arm in found}

    def traffic(self, **options: Any) -> "Traffic":
        """Made-up users of the endpoint: `with pipeline.traffic() as seen:`."""
        return Traffic(self.suite.state["http"], self.suite.key, **options)

    def spoil(self, version: str, **faults: object) -> None:
        """Has the engines fail for one version; see tests/fakes/fake_engine.py."""
        digest = self.client.models.version(version).artifact.digest
        for launch in engines(self.suite.home):
            headers = {"authorization": f"Bearer {launch['key']}"}
            with httpx.Client(
                base_url=f"http://127.0.0.1:{launch['port']}", headers=headers, trust_env=False
            ) as engine:
                models = [each["id"] for each in engine.get("/v1/models").json()["data"]]
                only = next((model for model in models if model == served_name(digest)), "")
                if only:
                    engine.post("/_fake/faults", json={**faults, "only": only}).raise_for_status()

    def _rollout(self, version: str, wanted: Callable[[gateway.Rollout], bool]) -> gateway.Rollout | None:
        found = self.client.rollouts.list(filter=f'model_version = "{version}"')
        return next(filter(wanted, found), None)

    def close(self) -> None:
        """Ends the channel."""
        self.client.close()


@dataclass
class Traffic:
    """Threads that ask the endpoint over and over, each time as another session; entering waits for nobody."""

    http: str
    key: str
    threads: int = 2
    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def _ask(self, thread: int) -> None:
        headers = {"authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=self.http, headers=headers, timeout=30, trust_env=False) as client:
            for number in itertools.count():
                if self._stop.wait(0.005):
                    return
                messages = [{"role": "user", "content": f"{MARK} traffic {number}"}]
                body = {"model": ENDPOINT, "messages": messages, "max_tokens": 16}
                try:
                    answer = client.post(
                        "/v1/chat/completions", json=body, headers={"x-sluice-session": f"{thread}-{number}"}
                    )
                except httpx.TransportError as error:
                    self.failures[type(error).__name__] += 1
                    self._stop.wait(0.1)
                    continue
                if answer.is_success:
                    self.answers[short(answer.headers["x-sluice-version"])] += 1
                else:
                    self.failures[str(answer.status_code)] += 1

    def until(self, answers: int, version: str = "", timeout_s: float = 30.0) -> None:
        """Returns when so many answers came, of one version or of all."""
        of = (lambda: self.answers[version]) if version else self.answers.total
        until(lambda: of() >= answers, f"{answers} answers of {version or 'any version'}", timeout_s)

    def __enter__(self) -> Self:
        self._running = [threading.Thread(target=self._ask, args=(each,), daemon=True) for each in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(timeout=60)


def plan(*steps: tuple[int, float, int]) -> gateway.RolloutPlan:
    """Steps of weight, least seconds and least requests."""
    made = gateway.RolloutPlan()
    for weight, hold_s, requests in steps:
        made.steps.add(weight_percent=weight, min_requests=requests).hold.FromMilliseconds(int(hold_s * 1000))
    return made


def row(task_type: str, number: int) -> Mapping[str, object]:
    """A row of a task type that no other number gives."""
    text = f"{MARK} item {number} of the store room {number * 7}"
    if task_type == "pretrain":
        return {"text": f"{text} stands on shelf {number % 13} beside the door"}
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}


def engines(home: Path) -> list[dict[str, Any]]:
    """How each engine of the home was launched: `port`, `key`, `model`."""
    found = []
    for path in (home / "run" / "engines").glob("*/engine.json"):
        state = json.loads(path.read_text())
        if path.parent.name != "scratch" and psutil.pid_exists(state["pid"]):
            found.append({**state["launch"], "pid": state["pid"]})
    return found


def short(name: str) -> str:
    """`adapter@2` for a model version."""
    parts = name.split("/")
    return f"{parts[3]}@{parts[5]}"


@contextmanager
def pipeline(folder: Path, module: str = "tests.fakes.suite", **environ: str) -> Iterator[Pipeline]:
    """A running suite, with fakes unless `module` says otherwise: `with pipeline(tmp_path) as running:`."""
    suite = Suite(folder, environ={**QUICK, **environ}, module=module)
    try:
        suite.start()
        running = Pipeline(suite)
        try:
            yield running
        finally:
            running.close()
    finally:
        suite.close()
