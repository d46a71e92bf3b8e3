"""How each interface is asked, and what becomes of its answers, against an engine made of figures."""

import json
import math

import pytest

from services.evaluator.asking import NoAnswer
from services.evaluator.heads import Classes, Model, answer
from services.evaluator.questions import Question

USER = [{"role": "user", "content": "hello"}]
PAIR = {
    "prompt": USER,
    "chosen": [{"role": "assistant", "content": "long"}],
    "rejected": [{"role": "assistant", "content": "short"}],
}
DOCUMENTS = {"query": "q", "documents": ["a", "b", "c", "d"]}


class Engine:
    """Answers by what it is given."""

    def __init__(self, reply):
        self.reply, self.posted = reply, []

    async def post(self, path, body):
        self.posted.append((path, body))
        return self.reply(path, body)


async def gives(interface, kind, asked, reply, classes=None):
    engine = Engine(reply)
    found = await answer(Model(engine, "m", interface, classes or Classes()), Question(1, asked, "", kind=kind), 8)
    assert {body["model"] for _, body in engine.posted} == {"m"}
    return found, engine.posted


async def test_messages_and_prompts_are_answered_in_words():
    def reply(path, body):
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 8)
        return {"choices": [{"message": {"content": "yes"}} if "messages" in body else {"text": None}]}

    assert (await gives("chat", "text", {"messages": USER}, reply))[0] == "yes"
    found, posted = await gives("chat", "text", {"prompt": "p"}, reply)
    assert found == "" and posted[0][0] == "/v1/completions"


def likelihoods(long, short):
    """An engine whose prompt is the tokens 1 2, where 2 becomes 5 before the short answer."""

    def reply(path, body):
        assert path == "/v1/chat/completions"
        said = body["messages"][-1]["content"]
        if said == "hello":
            return {"prompt_token_ids": [1, 2]}
        assert body["continue_final_message"] and not body["add_generation_prompt"] and body["prompt_logprobs"] == 0
        ids, values = ([1, 2, 3, 4], [-9, *long]) if said == "long" else ([1, 5, 6], short)
        logprobs = [
            None,
            *({str(i): {"logprob": v}, "0": {"logprob": 9}} for i, v in zip(ids[1:], values, strict=True)),
        ]
        return {"prompt_token_ids": ids, "prompt_logprobs": logprobs}

    return reply


@pytest.mark.parametrize(
    ("long", "short", "preferred"),
    [
        ((-1.0, -1.0), (-1.5, -0.6), "chosen"),
        ((-1.0, -1.2), (-1.0, -1.0), "rejected"),
        ((-1.0, -2.0), (-1.6, -1.4), "tie"),
        ((-1.0, -2.0), (-1.600001, -1.4), "tie"),
    ],
)
async def test_the_likelier_answer_is_that_of_the_larger_mean(long, short, preferred):
    assert (await gives("chat", "preference", PAIR, likelihoods(long, short)))[0] == preferred


async def test_length_does_not_decide():
    # Sums are -2 and -1.9, means -1 and -1.9.
    def reply(path, body):
        said = body["messages"][-1]["content"]
        ids = {"hello": [1], "long": [1, 2, 3], "short": [1, 4]}[said]
        values = {"hello": [], "long": [-1.0, -1.0], "short": [-1.9]}[said]
        logprobs = [None, *({str(i): {"logprob": v}} for i, v in zip(ids[1:], values, strict=True))]
        return {"prompt_token_ids": ids, "prompt_logprobs": logprobs}

    assert (await gives("chat", "preference", PAIR, reply))[0] == "chosen"


@pytest.mark.parametrize(("rewards", "preferred"), [((2, 1), "chosen"), ((-2, 1), "rejected"), ((1, 1.000001), "tie")])
async def test_the_better_answer_is_that_of_the_larger_reward(rewards, preferred):
    def reply(path, body):
        assert path == "/v1/classify" and body["use_activation"] is False and body["messages"][0] == USER[0]
        return {"data": [{"label": "score", "probs": [rewards[body["messages"][-1]["content"] == "short"]]}]}

    assert (await gives("classify", "preference", PAIR, reply))[0] == preferred


@pytest.mark.parametrize(
    ("config", "found", "labels"),
    [
        ({}, {"label": "b", "probs": [0.2, 0.8]}, ["b"]),
        ({"id2label": {"1": "b", "0": "ä"}}, {"label": None, "probs": [0.8, 0.2]}, ["ä"]),
        ({"id2label": {"10": "k", "9": "j"}}, {"probs": [0.2, 0.8]}, ["k"]),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "multi_label_classification"},
         {"label": "c", "probs": [0.5, 0.4, 0.9]}, ["a", "c"]),
        ({"id2label": {"0": "a"}, "problem_type": "multi_label_classification"}, {"label": "a", "probs": [0.1]}, []),
    ],
)  # fmt: skip
async def test_labels(config, found, labels):
    given, posted = await gives("classify", "labels", {"text": "t"}, lambda *_: {"data": [found]}, Classes.read(config))
    assert json.loads(given) == labels
    assert posted == [("/v1/classify", {"model": "m", "input": "t", "truncate_prompt_tokens": -1})]


async def test_labels_of_a_text_with_images_are_asked_whole():
    messages = [{"role": "user", "content": [{"type": "text", "text": "t"}]}]
    found = {"label": "b", "probs": [0.2, 0.8]}
    given, posted = await gives("classify", "labels", {"messages": messages}, lambda *_: {"data": [found]})
    assert json.loads(given) == ["b"] and posted == [("/v1/classify", {"model": "m", "messages": messages})]


async def test_documents_by_cosine():
    vectors = [[3, 4], [-3, -4], [0.6, 0.8], [4, -3], [30, 40]]

    def reply(path, body):
        assert path == "/v1/embeddings" and body["input"] == ["q", "a", "b", "c", "d"]
        return {"data": [{"index": i, "embedding": each} for i, each in reversed(list(enumerate(vectors)))]}

    assert (await gives("embeddings", "ranking", DOCUMENTS, reply))[0] == "[1, 3, 2, 0]"


async def test_documents_by_score():
    def reply(path, body):
        assert path == "/v1/rerank" and body["use_activation"] is False
        scores = [1, 9.000001, -3, 9]
        return {
            "results": [{"index": i, "relevance_score": s} for i, s in sorted(enumerate(scores), key=lambda x: -x[1])]
        }

    assert (await gives("rerank", "ranking", DOCUMENTS, reply))[0] == "[1, 3, 0, 2]"


@pytest.mark.parametrize(
    ("interface", "kind", "asked", "given"),
    [
        ("chat", "text", {"messages": USER}, {"choices": []}),
        ("chat", "preference", PAIR, {"prompt_token_ids": [1, 2], "prompt_logprobs": [None, None]}),
        ("classify", "preference", PAIR, {"data": [{"probs": [0.2, 0.8]}]}),
        ("classify", "preference", PAIR, {"data": [{"probs": [math.nan]}]}),
        ("classify", "labels", {"text": "t"}, {"data": [{"label": None, "probs": [0.2, 0.8]}]}),
        ("entities", "spans", {"text": "t"}, {"data": [{"data": [[0.2, 0.8]]}]}),
        ("embeddings", "ranking", DOCUMENTS, {"data": [{"index": 0, "embedding": [1, 2]}]}),
        ("embeddings", "ranking", DOCUMENTS, {"data": [{"index": i, "embedding": [math.nan]} for i in range(5)]}),
        ("rerank", "ranking", DOCUMENTS, {"results": [{"index": 0, "relevance_score": 1}]}),
    ],
)
async def test_an_answer_of_another_kind_is_none(interface, kind, asked, given):
    with pytest.raises(NoAnswer, match=f"not what its interface `{interface}` gives"):
        await gives(interface, kind, asked, lambda *_: given)


async def test_spans_are_told_by_place_and_name():
    spans = [{"start": 12, "end": 16, "label": "LOC", "score": 0.4}, {"start": 0, "end": 4, "label": "PER"}]
    found, posted = await gives("entities", "spans", {"text": "t"}, lambda *_: {"data": [{"entities": spans}]})
    assert found == '["0:4:PER", "12:16:LOC"]' and posted == [("/v1/entities", {"model": "m", "input": "t"})]


async def test_a_model_for_which_all_documents_are_alike_keeps_their_order():
    found, _ = await gives("rerank", "ranking", DOCUMENTS, lambda *_: {
        "results": [{"index": i, "relevance_score": 0.5} for i in (2, 0, 3, 1)]
    })  # fmt: skip
    assert found == "[0, 1, 2, 3]"
