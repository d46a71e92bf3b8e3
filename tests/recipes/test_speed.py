"""What makes a recipe fast changes nothing that it learns: joined rows stay apart, and its loss is the plain one."""

import math
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import JobDir, run_recorded
from tests.recipes.jobs import conversations, digests, feedback, make_job, preferences, progress, result, texts

DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 5, 30], list(range(20, 50))]


@pytest.fixture
def model(blank: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(blank, dtype="float32").eval()


def test_logits_of_a_document_among_others_are_those_of_it_alone(recipes: SimpleNamespace, model) -> None:
    import torch

    from services.trainer.recipes.data import packing

    given = packing.joined(DOCUMENTS, model.device)
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([ids])).logits[0] for ids in DOCUMENTS]
        # transformers itself finds documents where positions begin anew, if there is no mask of padding ...
        own = model(input_ids=given["input_ids"], position_ids=given["position_ids"], use_cache=False).logits[0]
        blind = model(input_ids=given["input_ids"], use_cache=False).logits[0]
        packing.keep_apart(model)
        found = model(**given, use_cache=False).logits[0]
        padded = model(
            input_ids=torch.tensor([[*DOCUMENTS[1], 0, 0]]), attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0]])
        ).logits[0, :4]
    lengths = [len(ids) for ids in DOCUMENTS]
    for each in (own, found):
        for part, expected in zip(each.split(lengths), alone, strict=True):
            assert (part - expected).abs().max() < 1e-5
    assert (blind.split(lengths)[1] - alone[1]).abs().max() > 1e-3, "this would not see a document through another"
    assert (padded - alone[1]).abs().max() < 1e-5, "a padded batch, as in evaluation, is masked as ever"
    packing.together_again(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_base_that_cannot_keep_documents_apart_is_found_out(recipes: SimpleNamespace, model) -> None:
    from services.trainer.recipes.data import packing

    assert packing.can_join(model) and not packing.can_stay_apart(_through(model), DOCUMENTS)
    packing.keep_apart(model)
    assert packing.can_stay_apart(model, DOCUMENTS)
    model.config.layer_types = ["sliding_attention"]
    packing.together_again(model)
    assert not packing.can_join(model)


def _through(model):
    """The same model, to which all is one document."""

    class Whole:
        training, device = False, model.device
        eval, train = model.eval, model.train

        def __call__(self, input_ids, use_cache, **_):
            return model(input_ids=input_ids, use_cache=use_cache)

    return Whole()


@pytest.mark.parametrize("trained", [True, False])
def test_the_loss_in_chunks_is_the_plain_one_with_its_gradients(recipes: SimpleNamespace, trained: bool) -> None:
    import torch

    from services.trainer.recipes.learning.token_loss import LinearCrossEntropy

    torch.manual_seed(1)
    hidden, weight, bias = torch.randn(37, 16), torch.randn(90, 16), torch.randn(90)
    targets = torch.randint(0, 90, (37,))
    found = []
    for plain in (True, False):
        given = [hidden.clone().requires_grad_(), *(each.clone().requires_grad_(trained) for each in (weight, bias))]
        if plain:
            loss = torch.nn.functional.cross_entropy(given[0] @ given[1].T + given[2], targets, reduction="sum")
        else:
            loss = LinearCrossEntropy.apply(*given, targets, 8)
        (loss / 37).backward()
        found.append([loss.detach() / 37, *(each.grad for each in given)])
    for expected, got in zip(*found, strict=True):
        assert (expected is None and got is None) or (expected - got).abs().max() < 1e-6


def test_a_head_that_is_more_than_one_matrix_is_found_out(recipes: SimpleNamespace, model, blank: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertLMHeadModel,
        RecurrentGemmaConfig,
        RecurrentGemmaForCausalLM,
    )
    from trl import SFTConfig

    from services.trainer.recipes.learning.token_loss import TokenTrainer, has_plain_head, is_one_matrix

    small = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    capped = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**small, intermediate_size=64, lru_width=32))
    bert = BertLMHeadModel(BertConfig(**small, intermediate_size=64, is_decoder=True))
    model.train()
    assert is_one_matrix(model) and model.training
    for other in (capped, bert):
        assert has_plain_head(other) and not is_one_matrix(other), "its configuration's words are unknown"
    ids = torch.arange(8)[None]
    for scale in (1e3, 1e-6):  # with the small one the cap changes no logit yet, and will when they have grown
        capped.lm_head.weight.data *= scale
        assert not is_one_matrix(capped)
        trainer = TokenTrainer(
            model=capped,
            args=SFTConfig(report_to="none", use_cpu=True, bf16=False),
            train_dataset=Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()}),
            processing_class=AutoTokenizer.from_pretrained(blank),
        )
        capped.eval()
        loss = trainer.compute_loss(capped, {"input_ids": ids, "labels": ids}, num_items_in_batch=7)
        expected = torch.nn.functional.cross_entropy(capped(ids).logits[0, :-1], ids[0, 1:])
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5), "the loss of the model as it answers"


def test_it_takes_less_memory(recipes: SimpleNamespace) -> None:
    import torch

    from services.trainer.recipes.learning.token_loss import LinearCrossEntropy

    weight, targets = torch.randn(16_384, 32), torch.randint(0, 16_384, (2048,))

    def peak(loss: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """MB beyond what was held before."""
        hidden = torch.randn(2048, 32, requires_grad=True)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        loss(hidden).backward()
        return _status("VmHWM") - before

    logits = 2048 * 16_384 * 4 / 1e6
    plain = peak(lambda hidden: torch.nn.functional.cross_entropy(hidden @ weight.T, targets))
    chunked = peak(lambda hidden: LinearCrossEntropy.apply(hidden, weight, None, targets, 128))
    assert plain > 1.5 * logits and chunked < 0.3 * logits, (plain, chunked, logits)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def test_without_padding_the_same_is_learned_and_tokens_are_made_once(
    recipes: SimpleNamespace, sft_job: Callable[..., Path]
) -> None:
    plan = {"max_steps": 4, "gradient_accumulation_steps": 2}
    jobs = [
        sft_job(f"job{number}", optimization=plan, performance=told, validation=conversations(5))
        for number, told in enumerate([{}, {"padding_free": False}, {"loss_chunk_tokens": 3}, {}])
    ]
    for job in jobs[:3]:
        assert run_recorded(job, recipes.sft.train) == 0
    losses = [[line["loss"] for line in progress(job, "step")] for job in jobs[:3]]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0] == pytest.approx(losses[2], abs=1e-5)
    found = [result(job) for job in jobs[:3]]
    assert [each["settings"]["padding_free"] for each in found] == ["true", "false", "true"]
    assert len({each["metrics"]["tokens"] for each in found}) == 1, "padding is not counted"
    assert [each["metrics"]["eval_loss"] for each in found] == pytest.approx([found[0]["metrics"]["eval_loss"]] * 3)
    assert 0 < found[0]["metrics"]["mfu"] < 1.5 and "float32 product" in found[0]["environment"]["mfu_peak"]

    shutil.copytree(jobs[0] / "tokens", jobs[3] / "in" / "tokens")  # as the agent does
    assert run_recorded(jobs[3], recipes.sft.train) == 0
    assert result(jobs[3])["settings"]["tokens_cached"] == "true" and found[0]["settings"]["tokens_cached"] == "false"
    assert digests(jobs[3] / "out") == digests(jobs[0] / "out"), "the same tokens, and weights to the bit"


@pytest.mark.parametrize(
    ("recipe", "module"),
    [
        ("dpo", "preference"),
        *(pytest.param(*other, marks=pytest.mark.prove) for other in (("kto", "kto"), ("rm", "reward"))),
    ],
)
def test_tokens_of_answers_are_made_once_too(answers_job: Callable[..., Path], recipe: str, module: str) -> None:
    rows = feedback if recipe == "kto" else preferences
    first, second = (answers_job(recipe, rows(), rows(48, 6), name=name) for name in ("first", "second"))
    train = import_module(f"services.trainer.recipes.{module}").train
    assert run_recorded(first, train) == 0
    shutil.copytree(first / "tokens", second / "in" / "tokens")  # as the agent does
    assert run_recorded(second, train) == 0
    assert [result(job)["settings"]["tokens_cached"] for job in (first, second)] == ["false", "true"]
    assert not (second / "tokens").exists() and digests(second / "out") == digests(first / "out")


def longer(count: int = 48) -> list[dict[str, Any]]:
    """Pairs whose answers grow, and not with their places."""
    rows = preferences(count=count)
    for i, row in enumerate(rows):
        row["chosen"][0]["content"] += " now" * (i * 7 % count // 4)
    return rows


@pytest.mark.prove
@pytest.mark.parametrize("recipe", ["dpo", "orpo", "simpo", "rm"])
def test_answers_of_one_length_fill_a_batch_with_less_padding(answers_job: Callable[..., Path], recipe: str) -> None:
    import torch

    module = import_module(f"services.trainer.recipes.{'reward' if recipe == 'rm' else 'preference'}")
    seen: list[int] = []

    def count(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.training:
            seen.append(given[0].numel())

    found = []
    for grouped in (False, True):
        told = {"performance": {"group_by_length": True}} if grouped else {}
        job = answers_job(recipe, longer(), name=str(grouped), optimization={"max_steps": 12, "batch_size": 4}, **told)
        seen.clear()
        hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
        try:
            assert run_recorded(job, module.train) == 0, result(job)["error"]
        finally:
            hook.remove()
        found.append((sum(seen), result(job)["metrics"]["tokens"]))
    assert found[0][1] == found[1][1], "one epoch of the same rows"
    assert found[1][0] < 0.9 * found[0][0], found


@pytest.mark.parametrize("whole", [0.0, 0.5, 1.0])
def test_tokens_that_are_not_whole_are_made_anew(recipes: SimpleNamespace, tmp_path: Path, whole: float) -> None:
    from services.trainer.recipes.data import tokens
    from services.trainer.recipes.data.conversations import Tokenized

    table = tokens.columns([Tokenized([1, 2, 3], [-100, 2, 3])] * 40)
    job = JobDir(tmp_path)
    tokens._keep(job, "train", table)
    (made,) = (tmp_path / "tokens").iterdir()
    assert made.name == "train.arrow"
    lent = tmp_path / "in" / "tokens" / "train.arrow"
    lent.parent.mkdir(parents=True)
    lent.write_bytes(made.read_bytes()[: int(whole * made.stat().st_size)])
    found = tokens._kept(job, "train", tokens.SCHEMA, 40)
    assert (found == table) if whole == 1 else (found is None)
    assert job.settings["tokens_cached"] is (whole == 1)
    assert tokens._kept(job, "validation", tokens.SCHEMA, 40) is None


@pytest.mark.prove
def test_packed_conversations_are_learned_in_fewer_sequences(
    recipes: SimpleNamespace, sft_job: Callable[..., Path]
) -> None:
    job = sft_job(performance={"packing": True}, optimization={"batch_size": 2, "max_steps": 25}, max_length=64)
    assert run_recorded(job, recipes.sft.train) == 0
    losses = [line["loss"] for line in progress(job, "step")]
    found = result(job)
    assert losses[-1] < 0.7 * losses[0] and found["settings"]["packing"] == "true"
    assert found["metrics"]["tokens"] > 25 * 2 * 64 * 0.7, "sequences are nearly full"


@pytest.mark.prove
def test_documents_are_packed_apart(recipes: SimpleNamespace, tmp_path: Path, pretrained: Path) -> None:
    told = {"packing": True}
    plan = {"learning_rate": 0.01, "batch_size": 4, "max_steps": 12}
    parameters = {"max_length": 64, "optimization": plan, "performance": told}
    base, rows = pretrained / "out" / "model", texts(6)  # all of them fit into the first batch
    job = make_job(tmp_path / "job", "pretrain", parameters, rows, base=base)
    assert run_recorded(job, recipes.pretrain.train) == 0
    assert result(job)["settings"]["packing"] == "true"
    config = (job / "out" / "model" / "config.json").read_text()
    assert "documents" not in config, "no other program has that attention"
    losses = [line["loss"] for line in progress(job, "step")]
    assert math.isfinite(losses[-1]) and losses[-1] < losses[0]
    alone, together = _losses(base, [row["text"] for row in rows])
    assert losses[0] == pytest.approx(alone, abs=1e-4) and abs(together - alone) > 0.01


def _losses(base: Path, documents: list[str]) -> tuple[float, float]:
    """The mean over all tokens of the loss of each document alone, and of each behind all those before it."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    closed = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in documents]
    sums, before = [0.0, 0.0], []
    for ids in closed:
        assert len(ids) <= 64
        for which, seen in enumerate(([], before[-64:])):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*seen, *ids]])).logits[0, len(seen) : -1]
            sums[which] += cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
        before += ids
    count = sum(len(ids) - 1 for ids in closed)
    return sums[0] / count, sums[1] / count


@pytest.mark.prove
def test_rows_of_one_length_come_together(recipes: SimpleNamespace, tmp_path: Path) -> None:
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    from services.trainer.recipes.data.conversations import Tokenized
    from services.trainer.recipes.data.tokens import as_dataset, columns

    rows = [Tokenized([1] * (3 + 7 * i % 40), [1] * (3 + 7 * i % 40)) for i in range(400)]
    dataset = as_dataset(columns(rows))
    lengths = dataset["length"]
    assert list(lengths) == [len(row.input_ids) for row in rows]
    order = list(LengthGroupedSampler(8, lengths=list(lengths), generator=torch.Generator().manual_seed(1)))
    wasted = [
        sum(max(batch) - each for each in batch)
        for batch in ([lengths[i] for i in some[at : at + 8]] for some in [order] for at in range(0, 400, 8))
    ]
    assert sum(wasted) < 0.1 * sum(lengths)
