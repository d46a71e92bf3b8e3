"""The comparison with the recipe, against an engine made of figures."""

import json

import pytest

from services.evaluator.asking import NoAnswer
from services.evaluator.parity import compare

LINE = {
    "messages": [{"role": "user", "content": "hello"}],
    "prompt_token_ids": [5, 6, 7],
    "completion_token_ids": [8, 9, 2],
    "logprobs": [-0.1, -0.2, -0.3],
}


class Figures:
    """Gives token ids and log-probabilities as vLLM does."""

    def __init__(self, *, rendered=(5, 6, 7), answer=(8, 9, 2), logprobs=(-0.1, -0.2, -0.3), rival=None, ids=True):
        self.rendered, self.answer, self.logprobs, self.rival, self.ids = rendered, answer, logprobs, rival, ids

    async def post(self, path, body):
        ids = {"prompt_token_ids": list(self.rendered)} if self.ids else {}
        if path == "/v1/chat/completions":
            return {**ids, "choices": [{"message": {"content": "x"}}]}
        assert body["prompt"] == LINE["prompt_token_ids"]
        top = [{f"token_id:{t}": p} | (self.rival or {}) for t, p in zip(self.answer, self.logprobs, strict=True)]
        logprobs = {"token_logprobs": list(self.logprobs), "top_logprobs": top}
        return {"choices": [{"token_ids": list(self.answer) if self.ids else None, "logprobs": logprobs}]}


async def compared(engine):
    return await compare(json.dumps(LINE).encode() + b"\n", engine, "m", 0.01)


async def test_equal_is_equal():
    parity = await compared(Figures(logprobs=(-0.1, -0.204, -0.3)))
    assert parity.passed and (parity.prompts, parity.equal_prompts, parity.equal_answers) == (1, 1, 1)
    assert parity.max_log_probability_difference == pytest.approx(0.004) and not parity.first_difference


async def test_rounder_numbers_may_be_further_apart_by_what_the_recipe_says_they_are():
    def line(**more):
        return json.dumps({**LINE, **more}).encode()

    near, far = Figures(logprobs=(-0.1, -0.25, -0.3)), Figures(logprobs=(-0.1, -0.45, -0.3))
    assert (await compare(line(dtype="bfloat16"), near, "m", 0.01)).passed
    assert not (await compare(line(), near, "m", 0.01)).passed
    refused = await compare(line(dtype="bfloat16"), far, "m", 0.01)
    assert not refused.passed and "differs by 0.25 nats, more than 0.2" in refused.first_difference


async def test_an_undecided_token_may_differ():
    parity = await compared(Figures(answer=(8, 9, 4), rival={"token_id:2": -0.305}))
    assert parity.passed and parity.equal_answers == 0


async def test_answers_that_part_at_once_compare_nothing():
    engine = Figures(answer=(4, 4, 4), rival={"token_id:8": -0.105})
    parity = await compared(engine)
    assert not parity.passed and parity.first_difference == (
        "all prompts: only 0 of 3 tokens could be compared, fewer than half"
    )
    several = b"\n".join([json.dumps(LINE).encode()] * 2)
    assert not (await compare(several, Figures(answer=(8, 4, 4), rival={"token_id:9": -0.205}), "m", 0.01)).passed
    empty = json.dumps({**LINE, "completion_token_ids": [], "logprobs": []}).encode()
    assert "no tokens" in (await compare(empty, Figures(answer=(), logprobs=()), "m", 0.01)).first_difference


async def test_many_tokens_that_are_a_little_apart_are_another_model():
    line = json.dumps({**LINE, "dtype": "bfloat16"}).encode()
    parity = await compare(line, Figures(logprobs=(-0.15, -0.25, -0.35)), "m", 0.01)
    assert not parity.passed and parity.first_difference == (
        "all prompts: log-probabilities differ by 0.05 nats in the mean, more than 0.02"
    )


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Figures(rendered=(1, 5, 6, 7)), "renders it as 4 tokens and the recipe as 3; token 1 differs"),
        (Figures(answer=(8, 4, 4), rival={"token_id:9": -0.9}), "token 2 of the answer differs"),
        (Figures(answer=(8, 4, 4)), "prefers its own by inf"),
        (Figures(answer=(8, 9), logprobs=(-0.1, -0.2)), "answers 2 tokens and the recipe 3"),
        (Figures(logprobs=(-0.1, -0.2, -0.5)), "differs by 0.2 nats"),
        (Figures(logprobs=(-0.1, float("nan"), -0.3)), "not a number"),
        (Figures(ids=False), "gives no token ids"),
    ],
)
async def test_a_difference_is_told_without_the_prompt(engine, why):
    parity = await compared(engine)
    assert not parity.passed and why in parity.first_difference and "hello" not in parity.first_difference


async def test_an_engine_that_refuses_does_not_pass():
    class Refusing:
        async def post(self, path, body):
            raise NoAnswer("the engine refused the request with HTTP 400; it may be too long")

    assert "HTTP 400" in (await compared(Refusing())).first_difference
    assert not (await compare(b"", Refusing(), "m", 0.01)).passed


class Seeing(Figures):
    """Answers messages with pictures, with log-probabilities as vLLM gives them for a chat."""

    async def post(self, path, body):
        assert path == "/v1/chat/completions" and body["messages"] == PICTURE["messages"]
        if "logprobs" not in body:
            return await super().post(path, body)
        places = zip(self.answer, self.logprobs, strict=True)
        content = [{"token": f"token_id:{t}", "logprob": p, "top_logprobs": self.top(t, p)} for t, p in places]
        return {"choices": [{"token_ids": list(self.answer), "logprobs": {"content": content}}]}

    def top(self, token, logprob):
        rivals = {f"token_id:{token}": logprob} | (self.rival or {})
        return [{"token": each, "logprob": likely} for each, likely in rivals.items()]


PICTURE = LINE | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Seeing(logprobs=(-0.1, -0.204, -0.3)), ""),
        (Seeing(answer=(8, 9, 4), rival={"token_id:2": -0.305}), ""),
        (Seeing(answer=(8, 4, 4)), "prefers its own by inf"),
        (Seeing(logprobs=(-0.1, -0.2, -0.5)), "differs by 0.2 nats"),
    ],
)
async def test_pictures_are_shown_and_not_only_their_tokens(engine, why):
    parity = await compare(json.dumps(PICTURE).encode(), engine, "m", 0.01)
    assert parity.passed == (not why) and why in parity.first_difference
