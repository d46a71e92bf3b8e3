"""What is asked, under which digest, and which rows: pure functions."""

from datetime import UTC, datetime, timedelta

import pytest

from kit.rpc.errors import Invalid, StateConflict
from services.evaluator import domain
from services.evaluator.questions import read_questions
from services.evaluator.questions.texts import from_conversation, from_text
from services.evaluator.report import Given, make_report, read_rows, write_rows
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.types import v1 as types

NOW = datetime(2026, 11, 21, tzinfo=UTC)
VERSION = "projects/p/models/m/versions/3"
DATA = "projects/p/datasets/d/versions/1"


def suite(**changes):
    given = {"dataset_version": DATA, "split": "test", "metrics": ["rouge_l", "bleu_4"], "max_rows": 9, "max_tokens": 8}
    return evaluator.Suite(**(given | changes))


def test_the_digest_of_a_suite_never_changes():
    digest = domain.suite_digest(suite(), "sha256:aa")
    assert digest == "sha256:80637097f63908b2856b1950f79f344628970ee73713e17e40aa46cc4564715d"
    assert domain.suite_digest(suite(metrics=["bleu_4", "rouge_l"]), "sha256:aa") == digest
    changes = [{"split": "train"}, {"metrics": ["bleu_4"]}, {"max_rows": 8}, {"max_tokens": 9}]
    others = {domain.suite_digest(suite(**change), "sha256:aa") for change in changes}
    assert len({digest, domain.suite_digest(suite(), "sha256:bb"), *others}) == 6


def test_the_automatic_name_follows_from_the_version():
    assert domain.automatic_name(VERSION) == domain.automatic_name(VERSION) != domain.automatic_name(VERSION + "1")
    assert domain.automatic_name(VERSION).startswith("projects/p/evaluations/")


@pytest.mark.parametrize(
    ("rows", "wanted", "split", "noted"),
    [
        ({"test": 1, "train": 9}, "", "test", False),
        ({"test": 0, "validation": 2, "train": 9}, "", "validation", True),
        ({"train": 9}, "", "train", True),
        ({"test": 1, "train": 9}, "train", "train", False),
    ],
)
def test_rows_come_from_the_best_split_there_is(rows, wanted, split, noted):
    settled, note = domain.settle(suite(split=wanted), dataset.DatasetVersion(name=DATA, split_rows=rows))
    assert settled.split == split and bool(note) == noted


@pytest.mark.parametrize(("rows", "split"), [({"train": 9}, "test"), ({}, "")])
def test_a_split_without_rows_is_refused(rows, split):
    with pytest.raises(Invalid, match="no rows"):
        domain.settle(suite(split=split), dataset.DatasetVersion(name=DATA, split_rows=rows))


def test_another_project_is_refused():
    with pytest.raises(Invalid, match=r"suite\.dataset_version is not in `projects/p`"):
        wanted = evaluator.Evaluation(model_version=VERSION, suite=suite(dataset_version=DATA.replace("p/", "q/")))
        domain.check_request("projects/p", wanted)


@pytest.mark.parametrize(
    ("state", "after"),
    [("CREATED", "CANCELLED"), ("VALIDATING", "CANCELLED"), ("QUEUED", "CANCELLED"), ("PREPARING", "CANCELLING"),
     ("RUNNING", "CANCELLING"), ("CANCELLING", "CANCELLING"), ("CANCELLED", "CANCELLED")],
)  # fmt: skip
def test_cancel(state, after):
    evaluation = evaluator.Evaluation(name="e", state=f"JOB_STATE_{state}")
    domain.cancel(evaluation, NOW)
    assert evaluation.state == types.JobState.Value(f"JOB_STATE_{after}")


@pytest.mark.parametrize("state", sorted(set(types.JobState.keys()) - {"JOB_STATE_UNSPECIFIED"}))
def test_work_goes_on_only_for_what_is_worked_on(state):
    evaluation = evaluator.Evaluation(state=state)
    if state.removeprefix("JOB_STATE_") in ("PREPARING", "RUNNING", "CANCELLING"):
        domain.check_wanted(evaluation)
    else:
        with pytest.raises(domain.UnwantedError):
            domain.check_wanted(evaluation)


def test_only_a_failed_evaluation_can_be_retried():
    with pytest.raises(StateConflict, match="only one that ended without a report"):
        domain.retry(domain.new_evaluation("e", VERSION, "", NOW), NOW)


@pytest.mark.parametrize("automatic", [True, False])
def test_another_takes_over_from_one_that_was_given_up(automatic):
    given_up = domain.new_evaluation("e", VERSION, "trace", NOW)
    given_up.automatic = automatic
    given_up.suite.CopyFrom(suite())
    other = domain.take_over("f", given_up, NOW)
    assert (other.name, other.model_version, other.state) == ("f", VERSION, types.JOB_STATE_CREATED)
    assert (other.automatic, given_up.automatic, other.suite) == (automatic, False, given_up.suite)


@pytest.mark.parametrize("state", sorted(set(types.JobState.keys()) - {"JOB_STATE_UNSPECIFIED"}))
def test_only_what_waits_can_wait_too_long(state):
    evaluation = domain.new_evaluation("e", VERSION, "", NOW)
    evaluation.state = state
    evaluation.history[-1].state = state
    waits = state.removeprefix("JOB_STATE_") in ("CREATED", "VALIDATING", "QUEUED")
    limit = timedelta(days=7)
    assert domain.waited_too_long(evaluation, limit, NOW + timedelta(days=8)) == waits
    assert not domain.waited_too_long(evaluation, limit, NOW + timedelta(days=6))


def test_a_conversation_asks_all_but_its_last_answer():
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in turns]
    question = from_conversation(1, {"messages": messages}, 8)
    assert question.asked == {"messages": messages[:-1]} and question.reference == "d" and question.cut("x y") == "x y"


@pytest.mark.parametrize(
    ("text", "prompt", "reference", "answer", "counted"),
    [
        ("one two  three four five", "one two  three", "four five", " four six seven", "four six"),
        ("今天天气好", "今天天", "气好", "气好啊啊", "气好"),
        ("a b c d e f g h", "a b c d", "e f g", "e f g h", "e f g"),
    ],
)
def test_a_text_asks_its_first_half(text, prompt, reference, answer, counted):
    question = from_text(1, {"text": text}, 3)
    assert question.asked == {"prompt": prompt} and question.reference == reference
    assert question.cut(answer) == counted


def test_a_text_of_one_piece_asks_nothing():
    assert from_text(1, {"text": "x"}, 8) is None


async def test_rows_are_chosen_by_hash_and_keep_their_numbers():
    lines = [b'{"text":"a b %d"}\n' % i for i in range(50)]

    async def pieces(lines):
        yield b"".join(lines[:20])
        yield b"".join(lines[20:])

    chosen = await read_questions(pieces(lines), "chat", "pretrain", suite(max_rows=10))
    assert len(chosen) == 10 and [q.row for q in chosen] == sorted(q.row for q in chosen)
    again = await read_questions(pieces(lines[::-1]), "chat", "pretrain", suite(max_rows=10))
    assert {q.reference for q in again} == {q.reference for q in chosen}
    assert len(await read_questions(pieces(lines), "chat", "pretrain", suite(max_rows=0))) == 50


def test_both_versions_are_scored_on_the_rows_that_both_answered():
    questions = [from_text(i, {"text": f"a b c {i}"}, 8) for i in (1, 2, 3)]
    candidate = Given({1: "c 1", 2: "c 2"}, {3: "the engine took too long"})
    incumbent = Given({1: "c 1", 3: "c 3"}, {2: "the engine took too long"})
    report, rows = make_report(["exact_match"], questions, candidate, incumbent)
    assert report.rows_scored == 1 and report.rows_failed == 1
    assert report.metrics[0].count == report.incumbent_metrics[0].count == 1
    assert list(read_rows(write_rows(rows))) == rows
