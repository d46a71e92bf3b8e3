"""What must hold of a suite whatever was done to it (I1 to I8 of the fault list), read from outside."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf.json_format import Parse
from sqlmodel import col, func, select

from kit.blobs import FileKek, fetch_artifact, open_store
from kit.rpc.names import project_of
from kit.settings import SERVICES, Settings
from kit.store import Database, OutboxRow
from kit.telemetry.trace_files import read_traces
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.lifecycle import JOB, is_over
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.folders import contents, files
from tests.pipeline import MARK, Pipeline, Run, engines, gone, row
from tests.told import every_change_told

APPROVED = ("registry.v1.model_version.approved", "registry.v1.model_version.revoked")
#: What a promoted run says, in this order and nothing of it twice.
MILESTONES = (
    "trainer.v1.training_job.created", "trainer.v1.training_job.succeeded", "registry.v1.model_version.created",
    "evaluator.v1.evaluation.created", "evaluator.v1.evaluation.completed", "registry.v1.model_version.decided",
    "registry.v1.model_version.approved", "gateway.v1.rollout.created", "gateway.v1.rollout.promoted",
)  # fmt: skip
SUCCEEDED = types.JOB_STATE_SUCCEEDED
#: How each token of ours begins: {"typ":"JWT" in base64.
TOKEN = "eyJ0eXAiOiJKV1Qi"


def hold(pipeline: Pipeline) -> None:
    """All of them that need no more than the suite itself; waits for what is still under way."""
    gone(lambda: unfinished(pipeline), "what is under way (I5)")
    log = pipeline.client.events().list(limit=0)
    caused_once(pipeline)
    served_only_approved(pipeline.suite.home, log)
    uploads_kept(pipeline)
    asyncio.run(weights_kept(pipeline))
    every_change_told(pipeline, log)
    gone(lambda: {name: rows for name, rows in unpublished(pipeline).items() if rows}, "what no outbox has sent (I6)")
    nothing_told(pipeline, log)


def caused_once(pipeline: Pipeline) -> None:
    """I1: a job that succeeded has one version, that one evaluation the gate reads, and an approved one one rollout."""
    client = pipeline.client
    versions = client.models.versions("-")
    made = Counter(version.lineage.training_job for version in versions)
    jobs = [job.name for job in client.jobs.list() if job.state == SUCCEEDED]
    assert made == Counter(jobs), f"versions by job: {made}"
    judged = Counter(each.model_version for each in client.evaluations.list() if each.automatic)
    assert judged == Counter(version.name for version in versions), f"evaluations by version: {judged}"
    let_in = {version.name for version in versions if version.gate_decision.verdict == registry.VERDICT_PASS}
    rolled_out = Counter(each.model_version for each in client.rollouts.list())
    assert rolled_out == Counter(let_in), f"rollouts by version: {rolled_out}"


def unfinished(pipeline: Pipeline) -> list[str]:
    """I5: what is still under way."""
    client = pipeline.client
    jobs = [*client.jobs.list(), *client.evaluations.list()]
    waiting = [job.name for job in jobs if not is_over(JOB, job.state)]
    over = (gateway.ROLLOUT_STATE_PROMOTED, gateway.ROLLOUT_STATE_ROLLED_BACK, gateway.ROLLOUT_STATE_FAILED)
    waiting += [each.name for each in client.rollouts.list() if each.state not in over]
    on_the_way = (gateway.DEPLOYMENT_STATE_PENDING, gateway.DEPLOYMENT_STATE_LOADING)
    waiting += [each.name for each in client.deployments.list() if each.state in on_the_way]
    pending = registry.MODEL_VERSION_STATE_PENDING
    waiting += [each.name for each in client.models.versions("-") if each.state == pending]
    versions = Counter(each.lineage.training_job for each in client.models.versions("-"))
    succeeded = [job for job in client.jobs.list() if job.state == SUCCEEDED]
    waiting += [f"a version of {job.name}" for job in succeeded if not versions[job.name]]
    return waiting


def served(home: Path) -> list[dict[str, Any]]:
    """The gateway's own record of users' requests; what the evaluator asks of candidates is left out."""
    lines: list[dict[str, Any]] = []
    for path in sorted((home / "logs" / "served").glob("*.jsonl*")):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            endpoint = line.get("endpoint", "")
            if "/endpoints/" in endpoint and not endpoint.endswith(":candidate"):
                lines.append(line)
    return lines


def served_only_approved(home: Path, log: Iterable[events.Event], within_s: float = 5.0) -> float:
    """I2: no request was admitted to a version before it was approved, nor `within_s` after it was revoked, and none
    under a table that is younger than the route from which the revocation took it. Returns how many seconds the
    last request was admitted after the revocation of its version; 0 where none was.
    """
    rights = _rights(log)
    gone = _gone(log)
    late_s = 0.0
    for line in served(home):
        version, at = line["version"], line["time"]
        held = [(given, taken) for given, taken in rights[version] if given <= at]
        assert held, f"{version} served request {line['request_id']} before it was approved"
        taken = held[-1][1]
        if taken is not None and at > taken:
            late_s = max(late_s, at - taken)
            assert at - taken <= within_s, f"{version} served a request {at - taken:.2f} s after it was revoked"
            assert line["revision"] < gone[version], f"{version} served under a table that does not have it"
    return late_s


def _rights(log: Iterable[events.Event]) -> dict[str, list[tuple[float, float | None]]]:
    """By version: from when to when (None: until now) it was approved, in epoch seconds."""
    rights: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    for event in log:
        at = event.time.ToNanoseconds() / 1e9
        if event.type.endswith(APPROVED[0]):
            rights[event.subject].append((at, None))
        elif event.type.endswith(APPROVED[1]) and rights[event.subject]:
            rights[event.subject][-1] = (rights[event.subject][-1][0], at)
    return rights


def _gone(log: Iterable[events.Event]) -> dict[str, int]:
    """By revoked version: the revision of the first route after its revocation that does not have it."""
    revoked: set[str] = set()
    found: dict[str, int] = {}
    for event in log:
        if event.type.endswith(APPROVED[1]):
            revoked.add(event.subject)
        elif event.type.endswith("gateway.v1.endpoint.rerouted"):
            route = Parse(event.data_json, gateway.EndpointRerouted())
            routed = {arm.model_version for arm in route.route}
            for version in revoked - routed - set(found):
                found[version] = route.route_revision
    return found


def uploads_kept(pipeline: Pipeline) -> None:
    """I3: what was uploaded reads back as it was."""
    for name, (task_type, count) in pipeline.uploaded.items():
        splits = ("train", "validation", "test")
        back = [each for split in splits for each in pipeline.client.datasets.read(f"{name}@1", split)]
        wanted = [row(task_type, number) for number in range(count)]
        assert sorted(map(_text, back)) == sorted(map(_text, wanted)), f"`{name}@1` is not what was uploaded"


def _text(content: Any) -> str:
    kept = {key: content[key] for key in ("messages", "text") if content.get(key)}
    return json.dumps(kept, sort_keys=True)


async def weights_kept(pipeline: Pipeline) -> None:
    """I8: what a job left, and its version names by digest, is in the store with just those bytes."""
    settings = Settings.from_env("registry", pipeline.suite.variables)
    blobs = open_store(settings.blobs_url, FileKek.load(settings.kek_path, home=settings.home))
    versions = await asyncio.to_thread(pipeline.client.models.versions, "-")
    with TemporaryDirectory() as folder:
        for number, version in enumerate(versions):
            await fetch_artifact(blobs, project_of(version.name), version.artifact, Path(folder, str(number)))


def unpublished(pipeline: Pipeline) -> dict[str, int]:
    """I6: how many events of each service the bus has not acknowledged."""
    return asyncio.run(_unpublished(pipeline.suite.variables))


async def _unpublished(variables: dict[str, str]) -> dict[str, int]:
    found = {}
    for service in SERVICES:
        database = await Database.open(Settings.from_env(service, variables).database_url, service=service)
        async with database.read() as session:
            query = select(func.count()).select_from(OutboxRow).where(col(OutboxRow.published_at).is_(None))
            found[service] = int((await session.exec(query)).one())
        await database.close()
    return found


def nothing_told(pipeline: Pipeline, log: Iterable[events.Event]) -> None:
    """I7: no log, trace or event has content of a row or a secret, and no blob or stream has content."""
    home = pipeline.suite.home
    secrets = [pipeline.suite.key, *_secrets(pipeline)]
    beside = [*files(home / "jobs"), *files(home / "run" / "engines")]
    logs = [path for path in beside if path.suffix == ".log" or path.name == "log.txt"]
    for path, held in contents([*files(home / "logs"), *logs, pipeline.suite.folder / "up.log"]):
        _has_none(held, [MARK, *secrets], str(path.relative_to(pipeline.suite.folder)))
    for event in log:
        _has_none(event.data_json.encode(), [MARK, *secrets], f"the event {event.type} {event.id}")
    for path, held in contents([*files(home / "blobs"), *files(home / "nats")]):
        _has_none(held, [MARK], str(path.relative_to(home)))


def _secrets(pipeline: Pipeline) -> list[str]:
    """The passwords of the bus, the keys of engines, identities and blobs, and how every signed token begins."""
    home = pipeline.suite.home
    passwords = json.loads((home / "nats" / "credentials.json").read_text())
    private = [path.read_text().splitlines()[1] for path in (home / "run" / "identity").glob("*.key")]
    kek = Settings.from_env("registry", pipeline.suite.variables).kek_path.read_text().strip()
    return [*_strings(passwords), *(launch["key"] for launch in engines(home)), *private, kek, TOKEN]


def _strings(content: Any) -> list[str]:
    """Whatever is long enough for a secret in a JSON value."""
    inside = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    own = [content] if isinstance(content, str) and len(content) >= 20 else []
    return own + [each for value in inside for each in _strings(value)]


def _has_none(content: bytes, words: Iterable[str], where: str) -> None:
    for word in words:
        if word.encode() in content:
            kind = "content of a row" if word == MARK else "a secret"
            raise AssertionError(f"{where} has {kind}")


def told_in_order(run: Run, log: Iterable[events.Event]) -> None:
    """The milestones of a promoted run came once, in order, under the one trace of its job."""
    of_run = [event for event in log if event.subject in run.names]
    trace = trace_id(run.job.traceparent)
    strays = [event.type for event in of_run if trace_id(event.traceparent) != trace]
    assert trace and not strays, f"not under the trace of the job: {strays}"
    seen = [event.type.removeprefix("sluice.") for event in of_run]
    assert [each for each in seen if each in MILESTONES] == list(MILESTONES), seen
    by_service: dict[str, list[int]] = defaultdict(list)
    for event in of_run:
        by_service[event.type.split(".")[1]].append(event.sequence)
    assert all(numbers == sorted(set(numbers)) for numbers in by_service.values()), by_service


def trace_id(traceparent: str) -> str:
    """The second part of a W3C trace context."""
    return traceparent.split("-")[1] if traceparent.count("-") == 3 else ""


def spans_of(home: Path, trace: str) -> list[dict[str, Any]]:
    """What every process has kept under that trace so far."""
    return [span for span in read_traces(home / "logs" / "traces") if span["trace_id"] == trace]


def broken(spans: Iterable[dict[str, Any]]) -> set[str]:
    """Where a trace is in pieces: the spans whose parent nobody has kept."""
    known = {span["span_id"] for span in spans} | {""}
    return {f"{span['service']}: {span['name']}" for span in spans if span["parent_id"] not in known}
