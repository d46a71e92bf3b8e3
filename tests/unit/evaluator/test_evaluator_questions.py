"""What rows of each schema ask of which interface: pure functions."""

import json

import pytest

import tasks
from kit.rpc.errors import Invalid
from services.evaluator.heads import HEADS
from services.evaluator.metrics import METRICS, kind_of
from services.evaluator.questions import QUESTIONS, check_suite, read_questions
from services.evaluator.report import Given, make_report
from sluice.evaluator import v1 as evaluator


def turn(content, role="assistant"):
    return [{"role": role, "content": content}]


def pair(prompt, chosen, rejected):
    return {"prompt": turn(prompt, "user"), "chosen": turn(chosen), "rejected": turn(rejected)}


def feedback(prompt, answer, label):
    return {"prompt": turn(prompt, "user"), "completion": turn(answer), "label": label}


def fits(query, *positive, negatives=()):
    return {"query": query, "positive": list(positive), "negatives": list(negatives)}


async def asked(interface, schema, rows, metrics=tuple(METRICS), max_rows=0):
    async def pieces():
        yield b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    suite = evaluator.Suite(metrics=metrics, max_rows=max_rows, max_tokens=8)
    return await read_questions(pieces(), interface, schema, suite)


def test_every_kind_that_rows_ask_has_a_way_of_asking_and_a_metric():
    for (interface, _), asking in QUESTIONS.items():
        for kind in asking.kinds:
            assert (interface, kind) in HEADS and kind in {kind_of(name) for name in METRICS}


@pytest.mark.parametrize(
    ("interface", "schema", "metric", "why"),
    [
        (
            "chat",
            "sft",
            "ndcg_at_10",
            "`ndcg_at_10` scores no answers to rows of `sft` .* choose of bleu_4, box_iou, character_accuracy, e",
        ),
        ("classify", "preference", "rouge_l", "choose of preference_accuracy"),
        ("embeddings", "sft", "mrr", "no suite asks of a model that serves `embeddings`; choose rows of retrieval"),
        ("rerank", "preference", "preference_accuracy", "choose rows of retrieval"),
        ("speech", "sft", "rouge_l", "choose rows of no schema"),
    ],
)
def test_a_suite_that_cannot_be_asked_is_refused(interface, schema, metric, why):
    with pytest.raises(Invalid, match=why):
        check_suite(interface, schema, [metric], "d")


def test_a_suite_that_can_be_asked_is_not_refused():
    check_suite("chat", "feedback", ["rouge_l", "preference_accuracy"], "d")
    check_suite("classify", "classification", ["accuracy", "macro_f1", "micro_f1"], "d")
    check_suite("entities", "entities", ["entity_f1"], "d")


@pytest.mark.parametrize("name", tasks.task_types())
def test_the_rows_of_a_built_in_task_type_give_what_its_gate_asks(name):
    task_type = tasks.task_types()[name]
    check_suite(task_type["interface"], task_type["row_schema"], task_type["metrics"], "d")
    criteria = tasks.gate_policies()[task_type["gate_policy"]]["criteria"]
    assert {criterion["metric"] for criterion in criteria} <= set(task_type["metrics"])


PAIRS = [pair("p", "good", "bad"), pair("p", "same", "same"), pair("p", "good", "bad") | {"chosen": turn("a") * 2}]


@pytest.mark.parametrize("interface", ["chat", "classify"])
async def test_a_pair_asks_which_is_better(interface):
    (question,) = await asked(interface, "preference", PAIRS, ["preference_accuracy"])
    assert (question.row, question.kind, question.reference) == (1, "preference", "chosen")
    assert question.asked == PAIRS[0]


async def test_a_pair_asks_a_model_that_chats_what_it_says_too():
    found = await asked("chat", "preference", PAIRS)
    assert [(each.row, each.kind, each.key) for each in found] == [
        (1, "preference", 1),
        (1, "text", -1),
        (2, "text", -2),
    ]
    assert [each.asked for each in found[1:]] == [{"messages": turn("p", "user")}] * 2
    assert [each.reference for each in found[1:]] == ["good", "same"]
    given = Given({1: "chosen", -1: "bad"}, {-2: "the engine took too long"})
    report, rows = make_report(["preference_accuracy", "rouge_l"], found, given, None)
    assert [(each.name, each.value, each.count) for each in report.metrics] == [
        ("preference_accuracy", 1, 1),
        ("rouge_l", 0, 1),
    ]
    assert (report.rows_scored, report.rows_failed) == (1, 1)
    assert [(row.row, row.second, row.answer) for row in rows] == [
        (1, False, "chosen"),
        (1, True, "bad"),
        (2, True, ""),
    ]


async def test_feedback_compares_bad_answers_with_good_ones_to_the_same_prompt():
    rows = [feedback("a", "bad 1", False), feedback("a", "good", True), feedback("b", "alone", False),
            feedback("a", "bad 2", False), feedback("a", "better", True), feedback("c", "fine", True)]  # fmt: skip
    found = {question.row: question for question in await asked("chat", "feedback", rows)}
    assert sorted(found) == [1, 2, 4, 5, 6]
    sides = {row: [found[row].asked[side][0]["content"] for side in ("chosen", "rejected")] for row in (1, 4)}
    assert sides == {1: ["good", "bad 1"], 4: ["better", "bad 2"]}
    assert found[6].asked == {"messages": turn("c", "user")} and found[6].reference == "fine"
    assert {found[row].kind for row in (2, 5, 6)} == {"text"}


async def test_every_span_of_a_text_is_the_reference():
    spans = [{"start": 12, "end": 16, "label": "LOC"}, {"start": 0, "end": 4, "label": "PER"}]
    (question,) = await asked("entities", "entities", [{"text": "t", "entities": spans}])
    assert (question.asked, question.reference) == ({"text": "t"}, '["0:4:PER", "12:16:LOC"]')


async def test_only_what_a_metric_scores_is_asked():
    rows = [feedback("a", "bad", False), feedback("a", "good", True)]
    assert [each.row for each in await asked("chat", "feedback", rows, ["rouge_l"])] == [2]
    assert [each.row for each in await asked("chat", "feedback", rows, ["preference_accuracy"])] == [1]


async def test_answers_to_one_prompt_are_chosen_together():
    rows = [feedback(f"p{i}", word, word == "good") for word in ("good", "bad") for i in range(20)]
    found = await asked("chat", "feedback", rows, max_rows=10)
    kinds = [question.kind for question in found]
    assert (len(found), kinds.count("preference"), kinds.count("text")) == (10, 5, 5)


async def test_each_metric_scores_the_rows_of_its_kind():
    rows = [feedback("a", "bad", False), feedback("a", "good", True), feedback("b", "fine", True)]
    questions = await asked("chat", "feedback", rows)
    given = Given({1: "chosen", 2: "good", 3: "other"}, {})
    report, scored = make_report(["exact_match", "preference_accuracy", "accuracy"], questions, given, given)
    assert [(each.name, each.value, each.count) for each in report.metrics] == [
        ("exact_match", 0.5, 2),
        ("preference_accuracy", 1, 1),
    ]
    assert report.incumbent_metrics == report.metrics and report.rows_scored == 3
    assert [dict(row.scores) for row in scored] == [{"preference_accuracy": 1}, {"exact_match": 1}, {"exact_match": 0}]


async def test_a_classification_asks_for_its_labels():
    (question,) = await asked("classify", "classification", [{"text": "t", "label": ["b", "ä", "b"]}])
    assert question.asked == {"text": "t"} and question.reference == '["b", "ä"]' and question.kind == "labels"


@pytest.mark.parametrize("interface", ["embeddings", "rerank"])
async def test_a_query_asks_for_its_documents_among_others(interface):
    rows = [fits("q1", "a", negatives=["no", "b"]), fits("q2", "b", "c"), fits("q1", "a2"), fits("q3", "a", "d")]
    found = await asked(interface, "retrieval", rows)
    (first, second, *_) = found
    # Of `q1` again nothing, of `q3` not what fits here too; `b` stands once.
    assert sorted(first.asked["documents"]) == ["a", "b", "c", "d", "no"]
    assert sorted(second.asked["documents"]) == ["a", "a2", "b", "c", "d"]
    for question, row in zip(found, rows, strict=True):
        documents, places = question.asked["documents"], json.loads(question.reference)
        assert question.asked["query"] == row["query"] and question.kind == "ranking"
        assert sorted(documents[place] for place in places) == sorted(row["positive"])


async def test_where_documents_stand_does_not_tell_which_fits():
    rows = [fits(f"q{i}", f"document {i}") for i in range(200)]
    found = await asked("rerank", "retrieval", rows)
    assert {len(question.asked["documents"]) for question in found} == {31}
    first = sum(question.reference == "[0]" for question in found)
    assert 1 <= first <= 15  # by chance 200/31 = 6.5
    assert await asked("rerank", "retrieval", rows[:1]) == []
