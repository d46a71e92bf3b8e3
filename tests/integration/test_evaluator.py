"""Evaluations from the event to the report, with real gRPC, HTTP, SQLite and blobs; the model alone is made up."""

import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import evaluator_parts
import pytest
from evaluator_parts import (
    DATA,
    PROJECT,
    OpenAiPort,
    World,
    conversation,
    evaluating,
    model,
    neighbors,
    open_stores,
    peers_of,
    right,
    said,
)  # fmt: skip
from sqlmodel import SQLModel, select

from kit.auth import Principal
from kit.rpc.call import Call, acting
from kit.rpc.errors import NotFound, StateConflict
from kit.store import OutboxRow, check, watch
from services.evaluator import commands, domain, store
from services.evaluator.answers import once
from services.evaluator.servicer import EvaluationServicer
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.lifecycle import JOB, is_over
from sluice.registry import v1 as registry
from sluice.types import v1 as types

PARTS = Path(evaluator_parts.__file__)
ROOT = PARTS.parents[2]


class Parts:
    """An evaluator without its ports, and its neighbors; ``working`` is one life of its process."""

    def __init__(self, folder, database, blobs, world, channel):
        self.folder, self.database, self.blobs, self.world, self.channel = folder, database, blobs, world, channel
        self.servicer = EvaluationServicer(database, blobs, peers_of(channel))

    def working(self, port, **options):
        return evaluating(self.database, self.blobs, self.channel, port.address, **options)

    async def created(self, number, times=1):
        version = registry.ModelVersion(name=model(number), endpoint="m")
        for _ in range(times):
            await self.database.transact(lambda unit: commands.create_evaluation(unit, version))
        return domain.automatic_name(model(number))

    async def get(self, name):
        async with self.database.read() as session:
            return await store.EVALUATIONS.get(session, name)

    async def until(self, name, reached=lambda evaluation: is_over(JOB, evaluation.state)):
        async with asyncio.timeout(20):
            async for evaluation in watch(lambda: self.get(name), self.database.changed, 0.1):
                if reached(evaluation):
                    return evaluation

    async def evaluated(self, number, reply=right, **options):
        with OpenAiPort(reply) as port:
            async with self.working(port, **options):
                return await self.until(await self.created(number)), port

    async def events(self):
        async with self.database.read() as session:
            return [row.type.split(".v1.")[1] for row in (await session.exec(select(OutboxRow))).all()]


@pytest.fixture
async def parts(tmp_path):
    world = World()
    async with AsyncExitStack() as stack:
        database, blobs = await open_stores(tmp_path)
        stack.push_async_callback(database.close)
        yield Parts(tmp_path, database, blobs, world, await stack.enter_async_context(neighbors(world)))


async def kept(parts, name):
    """What is left of the answers of an evaluation."""
    async with parts.database.read() as session:
        return await store.batches(session, name, model(1))


async def test_an_event_ten_times_gives_one_evaluation_with_a_report(parts):
    with OpenAiPort(right) as port:
        async with parts.working(port):
            evaluation = await parts.until(await parts.created(1, times=10))
            async with asyncio.timeout(20):
                while await kept(parts, evaluation.name):  # noqa: ASYNC110 - a blob tells nobody that it is gone
                    await asyncio.sleep(0.02)
    assert evaluation.state == types.JOB_STATE_SUCCEEDED and evaluation.automatic and not evaluation.incumbent
    assert [(m.name, m.value, m.low, m.high, m.count) for m in evaluation.report.metrics] == [
        ("exact_match", 1, 1, 1, 40), ("rouge_l", 1, 1, 1, 40), ("bleu_4", 1, 1, 1, 40),
    ]  # fmt: skip
    assert evaluation.report.rows_scored == 40 and evaluation.report.digest and not evaluation.report.HasField("parity")
    assert evaluation.suite.split == "test" and evaluation.suite_digest
    assert len(port.asked()) == 40 and parts.world.released == [model(1)]
    found = await parts.events()
    assert found == ["evaluation.created", *["evaluation.changed"] * 4, "evaluation.completed"]


async def test_a_classifier_is_asked_for_labels_whose_names_its_config_tells(parts):
    names = {"problem_type": "multi_label_classification", "id2label": {"0": "fee", "1": "card", "2": "loan"}}
    parts.world.config = (await parts.blobs.put(PROJECT, once(json.dumps(names).encode()))).digest
    parts.world.task_type, parts.world.interface = "classification", "classify"
    parts.world.metrics = ["accuracy", "macro_f1", "micro_f1"]
    parts.world.rows = [{"text": f"card {i}", "label": ["card", "fee"] if i % 2 else ["card"]} for i in range(8)]

    def reply(path, body):
        assert path == "/v1/classify" and body["model"] == "candidate-1"
        return 200, {"data": [{"label": "card", "probs": [0.6, 0.9, 0.1]}]}

    evaluation, _ = await parts.evaluated(1, reply)
    assert evaluation.state == types.JOB_STATE_SUCCEEDED, evaluation.failure
    # card: F1 1. fee: 4 right, 4 too many, F1 2/3.
    found = {metric.name: metric.value for metric in evaluation.report.metrics}
    assert found == pytest.approx({"accuracy": 1 / 2, "macro_f1": 5 / 6, "micro_f1": 24 / 28})
    page = await parts.servicer.ListEvaluationRows(evaluator.ListEvaluationRowsRequest(parent=evaluation.name), None)
    assert {row.answer for row in page.rows} == {'["card", "fee"]'}


async def test_rows_that_no_engine_can_be_asked_are_left_out_and_counted(parts):
    parts.world.task_type, parts.world.metrics = "caption", ["exact_match"]
    parts.world.rows[3] |= {"images": ["sha256:" + "a" * 64] * 17}
    parts.world.rows[3]["messages"][0]["content"] = "<image>" * 17
    evaluation, _ = await parts.evaluated(1, right)
    assert evaluation.state == types.JOB_STATE_SUCCEEDED, evaluation.failure
    report = evaluation.report
    assert (report.rows_scored, report.rows_failed, report.rows_left_out) == (39, 0, 1)


async def test_metrics_that_do_not_fit_the_rows_fail_before_anything_is_loaded(parts):
    parts.world.metrics = ["ndcg_at_10"]
    evaluation, port = await parts.evaluated(1)
    assert evaluation.state == types.JOB_STATE_FAILED and "choose of bleu_4" in evaluation.failure.message
    assert not port.bodies and not parts.world.released


async def test_what_the_gate_asks_for_is_measured_where_the_rows_can_show_it(parts):
    parts.world.metrics = ["exact_match"]
    parts.world.gate = ["rouge_l", "exact_match", "rouge_l", "ndcg_at_10", "log_prob_drift"]
    evaluation, _ = await parts.evaluated(1)
    assert evaluation.suite.metrics == ["exact_match", "rouge_l"]
    assert [metric.name for metric in evaluation.report.metrics] == ["exact_match", "rouge_l"]
    parts.world.task_type, parts.world.metrics = "preference", ["preference_accuracy"]  # of a day when that was all
    plan = await peers_of(parts.channel).plan(evaluator.Evaluation(model_version=model(2)), None)
    assert plan.suite.metrics == ["preference_accuracy", "rouge_l", "exact_match"]
    by_hand = evaluator.Suite(dataset_version=DATA, metrics=["preference_accuracy"])
    plan = await peers_of(parts.channel).plan(evaluator.Evaluation(model_version=model(2)), by_hand)
    assert plan.suite.metrics == ["preference_accuracy"]


async def test_rows_can_be_paged_through(parts):
    evaluation, _ = await parts.evaluated(1)
    rows, token = [], ""
    while True:
        request = evaluator.ListEvaluationRowsRequest(parent=evaluation.name, page_size=15, page_token=token)
        page = await parts.servicer.ListEvaluationRows(request, None)
        rows += page.rows
        if not (token := page.next_page_token):
            break
    assert [row.row for row in rows] == list(range(1, 41))
    assert rows[3].reference == rows[3].answer == "answer 3" and rows[3].scores["exact_match"] == 1


async def test_rows_are_for_those_who_may_know_of_the_dataset(parts):
    evaluation, _ = await parts.evaluated(1)
    stranger = Principal("projects/default/apiKeys/x", frozenset())
    parts.world.strangers.append(stranger.name)
    with acting(Call(stranger, "/ListEvaluationRows")), pytest.raises(NotFound):
        await parts.servicer.ListEvaluationRows(evaluator.ListEvaluationRowsRequest(parent=evaluation.name), None)


ROWS = f"sha256:{hashlib.sha256(evaluator_parts.Datasets(World()).content()).hexdigest()}"


def applied(versions=(DATA,), count=1, old=ROWS):
    changes = [dataset.VersionChange(dataset_version=version, old_digest=old) for version in versions]
    name = f"{PROJECT}/datasets/d/erasures/e"
    return dataset.ErasureApplied(erasure=name, changes=changes, version_count=count)


async def test_what_was_kept_of_forgotten_rows_goes_and_the_figures_stay(parts):
    evaluation, _ = await parts.evaluated(1)
    other = f"{PROJECT}/datasets/d/versions/2"
    for told in (applied([other]), applied(old="sha256:of the rows before these"), applied(), applied()):
        await parts.database.transact(lambda unit, told=told: commands.forget_rows(unit, told))
        forgotten = told == applied()
        assert (await parts.get(evaluation.name)).HasField("rows_forget_time") == forgotten
    with OpenAiPort(right) as port:
        async with parts.working(port), asyncio.timeout(20):
            while await parts.blobs.stat(PROJECT, evaluation.report.rows_digest):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    request = evaluator.ListEvaluationRowsRequest(parent=evaluation.name)
    with pytest.raises(StateConflict, match="forgotten since"):
        await parts.servicer.ListEvaluationRows(request, None)
    assert (await parts.get(evaluation.name)).report == evaluation.report


async def test_rows_that_are_forgotten_while_they_are_asked_are_asked_no_more(parts):
    reached, forgotten, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def reply(path, body):
        loop.call_soon_threadsafe(reached.set)
        forgotten.wait(10)
        return right(path, body)

    with OpenAiPort(reply) as port:
        async with parts.working(port):
            name = await parts.created(1)
            await reached.wait()
            parts.world.rows.pop(0)
            await parts.database.transact(lambda unit: commands.forget_rows(unit, applied([], 501)))
            forgotten.set()
            evaluation = await parts.until(name)
    assert evaluation.state == types.JOB_STATE_SUCCEEDED and evaluation.report.rows_scored == 39
    rows = (await parts.servicer.ListEvaluationRows(evaluator.ListEvaluationRowsRequest(parent=name), None)).rows
    assert [row.reference for row in rows] == [row.answer for row in rows]
    assert "answer 0" not in {row.reference for row in rows}


async def test_the_incumbent_is_asked_the_same_rows_and_its_own_evaluation_is_reused(parts):
    parts.world.stable = model(1)

    def reply(path, body):
        return right(path, body) if body["model"] == "candidate-2" else said("no")

    second, port = await parts.evaluated(2, reply)
    assert second.incumbent == model(1) and len(port.asked("candidate-1")) == len(port.asked("candidate-2")) == 40
    assert second.report.metrics[0].value == 1 and second.report.incumbent_metrics[0].value == 0
    assert sorted(parts.world.released) == [model(1), model(2)]

    parts.world.stable = model(2)
    third, port = await parts.evaluated(3)
    assert third.incumbent == model(2) and not port.asked("candidate-2") and len(port.asked("candidate-3")) == 40
    assert third.report.incumbent_metrics[0].value == 1


async def test_a_stopped_process_asks_no_answered_row_again(parts):
    answered = []

    def reply(path, body):
        if len(answered) >= 20:
            return 503, {}
        answered.append(body["messages"][-1]["content"])
        return right(path, body)

    with OpenAiPort(reply) as port:
        async with parts.working(port):
            name = await parts.created(1)
            await parts.until(name, lambda evaluation: evaluation.progress.done >= len(answered) >= 20)
    assert (await parts.get(name)).state == types.JOB_STATE_RUNNING

    with OpenAiPort(right) as port:
        async with parts.working(port):
            evaluation = await parts.until(name)
    assert evaluation.report.rows_scored == 40 and evaluation.report.metrics[0].value == 1
    assert not set(port.asked()) & set(answered) and len({*port.asked(), *answered}) == 40


@pytest.mark.parametrize(
    ("point", "asked_again"),
    [("evaluator_prepared", 40), ("evaluator_before_batch", 40), ("evaluator_before_report", 0), ("after_commit", 40)],
)
async def test_a_killed_process_is_followed_by_one_that_ends_the_work_once(parts, point, asked_again):
    name = await parts.created(1)
    with OpenAiPort(right) as port:
        child = await asyncio.create_subprocess_exec(
            sys.executable, PARTS, parts.folder, parts.world.address, port.address,
            env=os.environ | {"SLUICE_FAILPOINT": f"{point}:kill", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        async with asyncio.timeout(60):
            assert await child.wait() == -signal.SIGKILL
    with OpenAiPort(right) as port:
        async with parts.working(port):
            evaluation = await parts.until(name)
    assert evaluation.state == types.JOB_STATE_SUCCEEDED and evaluation.report.rows_scored == 40
    assert len(port.asked()) == asked_again
    assert (await parts.events()).count("evaluation.completed") == 1


async def test_a_process_killed_in_the_middle_leaves_its_batches_to_the_next(parts):
    parts.world.rows = [conversation(i) for i in range(120)]
    name = await parts.created(1)

    def reply(path, body):
        return right(path, body) if len(port.bodies) <= 70 else (503, {})

    with OpenAiPort(reply) as port:
        child = await asyncio.create_subprocess_exec(
            sys.executable, PARTS, parts.folder, parts.world.address, port.address,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        before = await parts.until(name, lambda evaluation: evaluation.progress.done >= 50)
        child.kill()
        await child.wait()
    with OpenAiPort(right) as port:
        async with parts.working(port):
            evaluation = await parts.until(name)
    assert evaluation.report.rows_scored == 120 and evaluation.report.metrics[0].value == 1
    assert len(port.asked()) == len(set(port.asked())) <= 120 - before.progress.done


async def test_a_version_that_cannot_be_loaded_fails_and_can_be_retried(parts):
    parts.world.broken[model(1)] = "the engine found no tensor `lm_head`"
    evaluation, port = await parts.evaluated(1)
    assert evaluation.state == types.JOB_STATE_FAILED and "no tensor `lm_head`" in evaluation.failure.message
    assert evaluation.failure.reason == 24 and parts.world.released == [model(1)] and not port.asked()
    assert (await parts.events())[-1] == "evaluation.failed"

    parts.world.broken.clear()
    await parts.servicer.RetryEvaluation(evaluator.RetryEvaluationRequest(name=evaluation.name), None)
    with OpenAiPort(right) as port:
        async with parts.working(port):
            again = await parts.until(evaluation.name)
    assert again.state == types.JOB_STATE_SUCCEEDED and not again.HasField("failure")


async def test_a_flaky_engine_is_asked_again_and_a_refused_row_is_counted(parts):
    seen = set()

    def reply(path, body):
        question = body["messages"][-1]["content"]
        if question == "question 7":
            return 400, {"error": {"message": "question 7 is too long"}}
        if question not in seen:
            seen.add(question)
            return 500, {}
        return right(path, body)

    evaluation, _ = await parts.evaluated(1, reply)
    assert evaluation.report.rows_scored == 39 and evaluation.report.rows_failed == 1
    listed = await parts.servicer.ListEvaluationRows(evaluator.ListEvaluationRowsRequest(parent=evaluation.name), None)
    assert "HTTP 400" in listed.rows[7].error and "question" not in listed.rows[7].error


async def test_an_engine_that_answers_nothing_gives_no_score(parts):
    evaluation, _ = await parts.evaluated(1, lambda path, body: (500, {}))
    assert evaluation.state == types.JOB_STATE_FAILED and "none of 40 rows" in evaluation.failure.message
    assert not evaluation.HasField("report")


async def test_a_gateway_that_is_away_is_waited_for_until_the_time_limit(parts):
    evaluation, _ = await parts.evaluated(1, lambda path, body: (503, {}), time_limit_s=1)
    assert evaluation.failure.reason == 28 and parts.world.released


async def test_cancel_stops_the_work_and_gives_the_route_back(parts):
    with OpenAiPort(lambda path, body: (503, {})) as port:
        async with parts.working(port):
            name = await parts.created(1)
            await parts.until(name, lambda evaluation: evaluation.state == types.JOB_STATE_RUNNING)
            await parts.servicer.CancelEvaluation(evaluator.CancelEvaluationRequest(name=name), None)
            evaluation = await parts.until(name)
    assert evaluation.state == types.JOB_STATE_CANCELLED and set(parts.world.released) == {model(1)}


@pytest.mark.parametrize("expires", [False, True])
async def test_what_is_given_up_when_it_began_anew_is_asked_no_more(parts, expires):
    reached, released, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def reply(path, body):
        loop.call_soon_threadsafe(reached.set)
        released.wait(20)
        return right(path, body)

    async def give_up(unit, name):
        await commands.forget_rows(unit, applied())
        if expires:
            await commands.expire(unit, name, timedelta(microseconds=-1))
        else:
            await commands.cancel(unit, evaluator.CancelEvaluationRequest(name=name))

    with OpenAiPort(reply) as port:
        async with parts.working(port):
            name = await parts.created(1)
            await reached.wait()
            await parts.database.transact(partial(give_up, name=name))
            try:
                async with asyncio.timeout(10):
                    while not parts.world.released:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            finally:
                released.set()
            assert len(port.asked()) <= 4
    given_up = types.JOB_STATE_EXPIRED if expires else types.JOB_STATE_CANCELLED
    assert (await parts.get(name)).state == given_up


async def test_another_takes_the_place_of_one_that_was_given_up(parts):
    name = await parts.created(1)
    cancelled = await parts.servicer.CancelEvaluation(evaluator.CancelEvaluationRequest(name=name), None)
    assert cancelled.evaluation.state == types.JOB_STATE_CANCELLED
    again = [
        (await parts.servicer.RetryEvaluation(evaluator.RetryEvaluationRequest(name=name), None)).evaluation
        for _ in range(2)
    ]
    with OpenAiPort(right) as port:
        async with parts.working(port):
            done = [await parts.until(each.name) for each in again]
    assert sorted(each.state for each in done) == [types.JOB_STATE_SUCCEEDED, types.JOB_STATE_CANCELLED]
    assert [each.automatic for each in done] == [each.state == types.JOB_STATE_SUCCEEDED for each in done]
    given_up = await parts.servicer.GetEvaluation(evaluator.GetEvaluationRequest(name=name), None)
    assert given_up.evaluation.state == types.JOB_STATE_CANCELLED and not given_up.evaluation.automatic


async def test_an_imported_version_without_rows_says_so(parts):
    parts.world.own_data = False
    evaluation, _ = await parts.evaluated(1)
    assert evaluation.state == types.JOB_STATE_FAILED and "has no dataset of its own" in evaluation.failure.message


async def test_without_test_rows_another_split_is_taken_and_noted(parts):
    parts.world.split, parts.world.rows = "train", [{"text": f"one two three {i} five six"} for i in range(9)]
    parts.world.task_type, parts.world.max_rows = "pretrain", 4

    def reply(path, body):
        assert path == "/v1/completions" and body["prompt"] == "one two three"
        return 200, {"choices": [{"text": " 0 five six and so on"}]}

    evaluation, port = await parts.evaluated(1, reply)
    assert evaluation.suite.split == "train" and evaluation.report.rows_scored == 4 == len(port.bodies)
    assert any("`test` has none" in entry.note for entry in evaluation.history)


async def test_by_hand_finds_what_there_is_and_the_automatic_one_yields_to_it(parts):
    wanted = evaluator.Evaluation(model_version=model(1))
    request = evaluator.CreateEvaluationRequest(parent=PROJECT, evaluation=wanted)
    first = (await parts.servicer.CreateEvaluation(request, None)).evaluation
    assert (await parts.servicer.CreateEvaluation(request, None)).evaluation.name == first.name
    suite = evaluator.Suite(dataset_version=DATA, metrics=["exact_match"])
    request.evaluation.suite.CopyFrom(suite)
    other = (await parts.servicer.CreateEvaluation(request, None)).evaluation
    assert other.name != first.name and other.suite_digest != first.suite_digest

    with OpenAiPort(right) as port:
        async with parts.working(port):
            name = await parts.created(1)
            yielded = await parts.until(name)
            done = await parts.until(first.name)
    assert yielded.state == types.JOB_STATE_CANCELLED and not yielded.automatic
    assert done.state == types.JOB_STATE_SUCCEEDED and done.automatic


async def test_parity_is_part_of_the_report(parts):
    line = b'{"prompt": "a", "prompt_token_ids": [1], "completion_token_ids": [2], "logprobs": [-0.1]}\n'
    parts.world.parity = (await parts.blobs.put(PROJECT, once(line))).digest

    def reply(path, body):
        if path.endswith("chat/completions"):
            return right(path, body)
        choice = {"prompt_token_ids": [1], "token_ids": [2], "text": ""}
        choice["logprobs"] = {"token_logprobs": [-0.101], "top_logprobs": [{"token_id:2": -0.101}]}
        return 200, {"choices": [choice]}

    evaluation, _ = await parts.evaluated(1, reply)
    assert evaluation.report.parity.passed and evaluation.report.parity.prompts == 1
    assert evaluation.report.parity.max_log_probability_difference == pytest.approx(0.001)


async def test_models_and_migrations_agree(parts):
    assert await check(parts.database, SQLModel.metadata) == []
