"""The work of one evaluation, from loading engines to the report; states and retries are the supervisor's matter."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from kit.blobs import Blob, BlobStore
from kit.rpc.errors import NotFound
from kit.rpc.names import project_of
from kit.store import Database, failpoint
from kit.telemetry import get_log, span
from services.evaluator import commands, heads, pictures, report, store
from services.evaluator.answers import Answers, once, read_whole
from services.evaluator.asking import Engine, NoAnswer
from services.evaluator.parity import compare
from services.evaluator.peers import Peers
from services.evaluator.questions import CHAT, Question, read_questions
from services.evaluator.report import Given
from services.evaluator.routes import Lease, Routes
from sluice.evaluator import v1 as evaluator
from sluice.senses import takes
from sluice.types import v1 as types

log = get_log(__name__)


class Runner:
    """Asks, compares and scores. Whatever it did before a fault or a crash and has kept, it does not do again."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        peers: Peers,
        routes: Routes,
        engine: Engine,
        *,
        row_concurrency: int,
        parity_tolerance: float,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.peers = peers
        self.routes = routes
        self.engine = engine
        self.parity_tolerance = parity_tolerance
        self.row_concurrency = row_concurrency

    async def run(self, evaluation: evaluator.Evaluation) -> evaluator.Report:
        """The report of an evaluation in PREPARING or RUNNING; its rows are stored.

        Raises the fault that stands in the way: Unavailable where another try may help.
        """
        version = await self.peers.model_version(evaluation.model_version)
        interface = version.interface or CHAT
        questions = await self._questions(evaluation, interface)
        incumbent = await self._known_answers(evaluation)
        versions = [version.name]
        if evaluation.incumbent and incumbent is None:
            versions.append(evaluation.incumbent)
        async with AsyncExitStack() as stack:
            with span("evaluator.prepare", versions=len(versions)):
                leases = await stack.enter_async_context(self.routes.held(versions))
            failpoint("evaluator_prepared")
            videos = pictures.with_videos(questions)
            models = [await self._model(lease, interface, videos=videos) for lease in leases]
            told = len({each.row for each in questions})
            questions = [each for each in questions if pictures.askable(each, models[0].senses)]
            asked = len(questions) * len(leases)
            await self.database.transact(lambda unit: commands.start(unit, evaluation.name, asked))
            with span("evaluator.parity", version=version.name):
                parity = await self._parity(version.parity.digest, leases[0])
            with span("evaluator.ask", rows=len(questions), versions=len(leases)) as asking:
                given: list[Given] = []
                for lease, model in zip(leases, models, strict=True):
                    given.append(await self._ask(evaluation, lease, model, questions, len(given) * len(questions)))
                asking.set_attribute("rows_failed", sum(len(each.failed) for each in given))
        with span("evaluator.score", rows=len(questions)):
            other = given[1] if len(given) > 1 else incumbent
            made, rows = await asyncio.to_thread(
                report.make_report, evaluation.suite.metrics, questions, given[0], other
            )
        made.rows_left_out = told - len({each.row for each in questions})
        if parity is not None:
            made.parity.CopyFrom(parity)
        blob = await self._keep(evaluation.name, report.write_rows(rows))
        failpoint("evaluator_before_report")
        made.rows_digest = blob.digest
        made.digest = report.report_digest(made)
        return made

    async def _keep(self, name: str, rows: bytes) -> Blob:
        """Stores what each row gave; it goes again unless the evaluation comes to name it."""
        project, digest = project_of(name), f"sha256:{hashlib.sha256(rows).hexdigest()}"
        await self.database.transact(partial(store.doom, space=project, digest=digest, evaluation=name))
        return await self.blobs.put(project, once(rows), digest=digest)

    async def _questions(self, evaluation: evaluator.Evaluation, interface: str) -> list[Question]:
        suite = evaluation.suite
        schema = await self.peers.row_schema(suite)
        return await read_questions(self.peers.read_rows(suite), interface, schema, suite)

    async def _model(self, lease: Lease, interface: str, *, videos: bool) -> heads.Model:
        """A version to ask, with what no engine tells of one: all its classes, and whether it takes videos whole."""
        config: dict[str, Any] = {}
        if interface == "classify" or videos:
            version = await self.peers.model_version(lease.version)
            if version.artifact.kind == types.ARTIFACT_KIND_ADAPTER:
                version = await self.peers.model_version(version.base_model_version)
            files = {file.path: file.digest for file in version.artifact.files}
            if digest := files.get("config.json"):
                config = json.loads(await read_whole(self.blobs, project_of(lease.version), digest))
        return heads.Model(self.engine, lease.model, interface, heads.Classes.read(config), takes(config))

    async def _known_answers(self, evaluation: evaluator.Evaluation) -> Given | None:
        """What the incumbent answered when it was evaluated under the same suite itself, if it was."""
        if not evaluation.incumbent:
            return None
        async with self.database.read() as session:
            earlier = await store.effective(session, evaluation.incumbent, evaluation.suite_digest)
        if earlier is None or earlier.state != types.JOB_STATE_SUCCEEDED or earlier.report.rows_failed:
            return None
        if earlier.HasField("rows_forget_time"):
            return None
        content = await read_whole(self.blobs, project_of(earlier.name), earlier.report.rows_digest)
        rows = report.read_rows(content)
        return Given({-row.row if row.second else row.row: row.answer for row in rows}, {})

    async def _parity(self, digest: str, lease: Lease) -> evaluator.Parity | None:
        """The comparison with the recipe; None where it left nothing to compare, or that was forgotten with rows."""
        if not digest:
            return None
        try:
            content = await read_whole(self.blobs, project_of(lease.version), digest)
        except NotFound:
            log.warning("parity_gone", version=lease.version)
            return None
        return await compare(content, self.engine, lease.model, self.parity_tolerance)

    async def _ask(
        self,
        evaluation: evaluator.Evaluation,
        lease: Lease,
        model: heads.Model,
        questions: Sequence[Question],
        before: int,
    ) -> Given:
        """Asks a version what it has not answered yet; ``before`` answers of others count in the progress.

        Raises the fault that ended the route, or Unavailable.
        """
        answers = Answers(self.database, self.blobs, evaluation.name, lease.version, before=before)
        await answers.load()

        left = iter([question for question in questions if question.key not in answers.by_key])

        read = partial(self.peers.read_image, evaluation.suite.dataset_version)

        async def ask() -> None:
            for question in left:
                lease.check()
                try:
                    asked = await pictures.shown(question, read, videos="video" in model.senses)
                    answer = await heads.answer(model, asked, evaluation.suite.max_tokens)
                except NoAnswer as error:
                    answers.failed[question.key] = str(error)
                else:
                    await answers.add(question.key, answer)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.row_concurrency):
                    group.create_task(ask())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            await answers.write()
        lease.check()
        if answers.failed:
            log.warning("rows_unanswered", evaluation=evaluation.name, version=lease.version, rows=len(answers.failed))
        return Given(answers.by_key, answers.failed)
