"""The comparison of vectors and scores with the recipe's, against an engine made of figures."""

import json

import pytest

from services.evaluator.parity import compare

PROBES = {
    "vector": {"kind": "vector", "input": "hello", "token_ids": [5, 6], "values": [0.6, -0.8]},
    "logits": {"kind": "logits", "messages": [{"role": "user", "content": "hello"}], "token_ids": [5, 6],
               "values": [4.0, -2.0]},
    "score": {"kind": "score", "query": "hello", "document": "there", "token_ids": [5, 6], "values": [-3.0]},
    "tokens": {"kind": "tokens", "input": "hello", "token_ids": [5, 6], "values": [1.0, 2.0, -3.0, 4.0]},
}  # fmt: skip


class Figures:
    """Gives values as vLLM does; by default those of the recipe, for text and ids."""

    def __init__(self, *, text=None, ids=None, tokens=2, answer=None):
        self.text, self.ids, self.tokens, self.answer = text, ids, tokens, answer

    async def post(self, path, body):
        assert body["model"] == "m"
        if self.answer is not None:
            return self.answer
        usage = {"prompt_tokens": self.tokens}
        values = self.ids if body.get("input") == [5, 6] else self.text
        if path == "/v1/embeddings":
            return {"data": [{"index": 0, "embedding": values or [0.6, -0.8]}], "usage": usage}
        assert body["use_activation"] is False
        if path == "/v1/classify":
            return {"data": [{"probs": values or [4.0, -2.0]}], "usage": usage}
        if path == "/v1/pooling":
            values = values or [1.0, 2.0, -3.0, 4.0]
            return {"data": [{"data": [values[:2], values[2:]]}], "usage": usage}
        assert path == "/v1/rerank" and (body["query"], body["documents"]) == ("hello", ["there"])
        return {"results": [{"index": 0, "relevance_score": (values or [-3.0])[0]}], "usage": usage}


async def compared(probe, engine, **changes):
    lines = [json.dumps(each) for each in (PROBES[probe], PROBES[probe] | changes)]
    return await compare("\n".join(lines).encode(), engine, "m", 0.01)


async def test_images_are_asked_as_a_client_asks_and_not_by_token_ids():
    engine, parts = Figures(ids=[9.0, 9.0]), [{"role": "user", "content": [{"type": "text", "text": "t"}]}]
    assert not (await compared("logits", engine)).passed
    probe = json.dumps({**PROBES["logits"], "messages": parts}).encode()
    parity = await compare(probe, engine, "m", 0.01)
    assert parity.passed and (parity.prompts, parity.equal_prompts, parity.equal_answers) == (1, 1, 1)
    engine = Figures(tokens=3)
    assert not (await compare(probe, engine, "m", 0.01)).passed


@pytest.mark.parametrize("kind", sorted(PROBES))
async def test_equal_is_equal(kind):
    parity = await compared(kind, Figures())
    assert parity.passed and (parity.prompts, parity.equal_prompts, parity.equal_answers) == (2, 2, 2)
    assert parity.max_value_difference == 0 and not parity.first_difference


@pytest.mark.parametrize(
    ("kind", "values", "passed"),
    [
        ("vector", [0.6007, -0.8], True),
        ("vector", [0.6009, -0.8], False),  # more than 0.001 × 0.8
        ("logits", [4.003, -2.0], True),
        ("logits", [4.0, -2.005], False),
        ("score", [-3.002], True),
        ("score", [-3.004], False),
        ("tokens", [1.0, 2.0, -3.0, 4.003], True),
        ("tokens", [1.0, 2.005, -3.0, 4.0], False),
    ],
)
async def test_values_may_differ_by_a_thousandth_of_the_largest(kind, values, passed):
    parity = await compared(kind, Figures(text=values, ids=values))
    assert parity.passed == passed
    apart = max(abs(a - b) for a, b in zip(values, PROBES[kind]["values"], strict=True))
    assert parity.max_value_difference == pytest.approx(apart)


async def test_half_precision_may_differ_by_more():
    engine = Figures(text=[4.1, -2.0], ids=[4.1, -2.0])
    parity = await compared("logits", engine, dtype="bfloat16")
    assert (parity.equal_prompts, parity.equal_answers) == (2, 1)
    assert parity.first_difference.startswith("probe 1 (logits): the values of engine and recipe differ by 0.1, more")


@pytest.mark.parametrize(
    ("kind", "engine", "why"),
    [
        ("vector", Figures(tokens=7), "probe 1 (vector): the engine reads it as 7 tokens and the recipe as 2"),
        ("score", Figures(tokens=7), "probe 1 (score): the engine reads it as 7 tokens"),
        ("vector", Figures(text=[0.8, 0.6]), "of its text and of the recipe's tokens of it differ by 1.4, more"),
        ("logits", Figures(ids=[4.0]), "of its text and of the recipe's tokens of it are 2 and 1"),
        ("logits", Figures(text=[float("nan"), 0], ids=[float("nan"), 0]), "is not a number"),
        ("tokens", Figures(ids=[1.0, 2.0, -3.0]), "of its text and of the recipe's tokens of it are 4 and 3"),
        ("tokens", Figures(answer={"data": [{"data": [1.0]}]}), "gives no values or no count of tokens"),
        ("vector", Figures(answer={"data": []}), "gives no values or no count of tokens"),
        ("score", Figures(answer={"results": [{"relevance_score": -3.0}]}), "gives no values or no count of tokens"),
    ],
)  # fmt: skip
async def test_a_difference_is_told_without_the_text(kind, engine, why):
    parity = await compared(kind, engine)
    assert not parity.passed and why in parity.first_difference and "hello" not in parity.first_difference


async def test_a_probe_that_is_not_known_does_not_pass():
    parity = await compared("vector", Figures(), kind="sound")
    assert parity.first_difference == "probe 2 (sound): nothing of this kind can be compared here"
