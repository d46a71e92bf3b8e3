"""What recipes of models that answer with numbers leave to compare, as the evaluator reads it."""

import json

import pytest

from services.evaluator.parity import compare
from services.trainer.recipes.job.failures import Diverged
from services.trainer.recipes.job.jobdir import JobDir

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("recipes"), pytest.mark.filterwarnings("ignore")]


class Engine:
    """Answers every text, and the tokens of it, with the values of its probe."""

    def __init__(self, probes):
        self.probes = probes

    async def post(self, path, body):
        (probe,) = (each for each in self.probes if self.is_of(each, body))
        usage, values = {"prompt_tokens": len(probe.token_ids)}, probe.values
        match path:
            case "/v1/embeddings":
                return {"data": [{"embedding": values}], "usage": usage}
            case "/v1/classify":
                return {"data": [{"probs": values}], "usage": usage}
            case "/v1/rerank":
                return {"results": [{"relevance_score": values[0]}], "usage": usage}

    def is_of(self, probe, body):
        asked = {"query": body.get("query"), "document": body.get("documents", [None])[0]}
        return body.get("input") == probe.token_ids or probe.asked in (
            asked,
            {"input": body.get("input")},
            {"messages": body.get("messages")},
        )


async def test_the_evaluator_reads_what_is_written(tmp_path):
    from services.trainer.recipes.learning.parity import Probe, write_probes

    messages = [{"role": "user", "content": "ä"}, {"role": "assistant", "content": "b"}]
    probes = [
        Probe("vector", {"input": "ä"}, [1, 2], [0.6, -0.8]),
        Probe("logits", {"input": "b"}, [1, 3], [1.0, 2.0, -9.0], "bfloat16"),
        Probe("logits", {"messages": messages}, [1, 4], [2.5]),
        Probe("score", {"query": "q", "document": "d"}, [1, 5, 6], [-3.0]),
        *(Probe("vector", {"input": str(i)}, [i], [1.0]) for i in range(10, 20)),
    ]
    write_probes(JobDir(tmp_path), iter(probes))
    content = (tmp_path / "parity.jsonl").read_bytes()
    assert [json.loads(line)["token_ids"] for line in content.splitlines()] == [each.token_ids for each in probes[:8]]
    parity = await compare(content, Engine(probes), "m", 0.01)
    assert parity.passed and (parity.prompts, parity.equal_prompts, parity.equal_answers) == (8, 8, 8)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_that_are_no_numbers_are_no_probe(tmp_path, values):
    from services.trainer.recipes.learning.parity import Probe, write_probes

    with pytest.raises(Diverged, match="no finite numbers"):
        write_probes(JobDir(tmp_path), [Probe("vector", {"input": "a"}, [1], values)])
    assert not (tmp_path / "parity.jsonl").exists()
