"""Recipes shared out among two processes: the same losses as one, what each held, and how they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import services
from tests.recipes.jobs import SHAPE, command, conversations, make_job, preferences, progress, result, texts

pytestmark = pytest.mark.training
ROOT = Path(services.__file__).parents[1]
MODULES = {"sft": "sft", "pretrain": "pretrain", "dpo": "preference"}


def of_all_lengths(count: int = 48) -> list[dict[str, Any]]:
    """Conversations whose answers grow, so that each batch has a length of its own."""
    rows = conversations(count)
    for i, row in enumerate(rows):
        row["messages"][1]["content"] += " now" * (i // 6)
    return rows


ROWS = {"sft": of_all_lengths, "pretrain": texts, "dpo": preferences}
#: Of one device; two that have rows of their own take half each.
BATCH = 8
KINDS: dict[str, dict[str, Any]] = {
    "ddp": {"sharding": "SHARDING_DDP"},
    "zero1": {"sharding": "SHARDING_ZERO1"},
    "zero2": {"sharding": "SHARDING_ZERO2"},
    "zero3": {"sharding": "SHARDING_ZERO3"},
    "zero2-offload": {"sharding": "SHARDING_ZERO2", "offload_optimizer": True},
    "zero3-offload": {"sharding": "SHARDING_ZERO3", "offload_optimizer": True, "offload_weights": True},
    "fsdp": {"sharding": "SHARDING_FSDP"},
    "tensor": {"tensor_parallel_size": 2},
    "ulysses": {"sequence_parallel_size": 2},
    "ulysses-zero3": {"sequence_parallel_size": 2, "sharding": "SHARDING_ZERO3"},
    "ulysses-fsdp": {"sequence_parallel_size": 2, "sharding": "SHARDING_FSDP"},
}
ENGINES = {"ddp": "DistributedDataParallel", "fsdp": "FSDPQwen3ForCausalLM", "tensor": "Qwen3ForCausalLM"}


@pytest.fixture(scope="module")
def shareable(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that knows nothing, of two layers and as many key heads as others."""
    from transformers import set_seed

    from services.trainer.recipes.fresh_model import ModelShape, fresh_model, train_tokenizer

    folder = tmp_path_factory.mktemp("shareable")
    shape = ModelShape(**{**SHAPE, "layers": 2, "kv_heads": 2})
    tokenizer = train_tokenizer([row["text"] for row in texts()], shape)
    set_seed(1)
    fresh_model(tokenizer, shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def job_of(shareable: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a job: `job_of("name", "sft", {"devices": 2})`."""

    def make(name: str, recipe: str = "sft", distribution: dict[str, Any] | None = None, **parameters: Any) -> Path:
        told = distribution or {}
        alone = not told or "tensor_parallel_size" in told or "sequence_parallel_size" in told
        given: dict[str, Any] = {
            "optimization": {"learning_rate": 0.01, "batch_size": BATCH if alone else BATCH // 2, "max_steps": 4},
            "checkpoint_every_steps": 2,
            "max_length": 32 if recipe == "pretrain" else 128,
            **({} if "lora" in parameters else {"full": {}}),
            **parameters,
        }
        if told:
            given["distribution"] = {"devices": 2, **told}
        return make_job(
            tmp_path / name, recipe, given, ROWS[recipe](), base=shareable, validation=ROWS[recipe](count=5)
        )

    return make


def launch(job: Path, recipe: str = "sft") -> "subprocess.Popen[bytes]":
    """The recipe of a job as the agent starts it; it takes a thread for each rank."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    module = [sys.executable, "-m", f"services.trainer.recipes.{MODULES[recipe]}", str(job)]
    shared = [sys.executable, "-m", "services.trainer.recipes.ranks", *module]
    spec = json.loads((job / "spec.json").read_text())
    with (job / "log.txt").open("ab") as log:
        return subprocess.Popen(shared if "distribution" in spec["parameters"] else module, env=environ, stderr=log)


def train(job: Path, recipe: str = "sft") -> dict[str, Any]:
    process = launch(job, recipe)
    try:
        status = process.wait()
    finally:
        process.kill()
    assert status == 0, (job / "log.txt").read_text()[-4000:]
    return result(job)


@pytest.fixture(scope="module")
def alone(shareable: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The job of a recipe that one process trained, each once."""
    from services.trainer.recipes.jobdir import run_recorded

    made: dict[str, Path] = {}

    def of(recipe: str, **parameters: Any) -> Path:
        if (key := json.dumps([recipe, parameters])) not in made:
            given = {
                "optimization": {"learning_rate": 0.01, "batch_size": BATCH, "max_steps": 4},
                "checkpoint_every_steps": 2,
                "max_length": 32 if recipe == "pretrain" else 128,
                **({} if "lora" in parameters else {"full": {}}),
                **parameters,
            }
            folder = tmp_path_factory.mktemp("alone") / "job"
            made[key] = make_job(
                folder, recipe, given, ROWS[recipe](), base=shareable, validation=ROWS[recipe](count=5)
            )
            module = import_module(f"services.trainer.recipes.{MODULES[recipe]}")
            assert run_recorded(made[key], module.train) == 0
        return made[key]

    return of


def check_same(job: Path, other: Path) -> None:
    """The same losses and gradients, and files with the same weights."""
    from safetensors.torch import load_file

    for figure in ("loss", "grad_norm"):
        said, expected = ([line[figure] for line in progress(each, "step")] for each in (job, other))
        assert said == pytest.approx(expected, abs=1e-5), figure
    found, expected = ([line["loss"] for line in progress(each, "eval")] for each in (job, other))
    assert found == pytest.approx(expected, rel=0.02)  # a mean over batches, which are others
    files = sorted(file.name for file in (other / "out" / "model").glob("*.safetensors"))
    assert files == sorted(file.name for file in (job / "out" / "model").glob("*.safetensors"))
    for name in files:
        ours, theirs = (load_file(each / "out" / "model" / name) for each in (job, other))
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            assert (ours[key] - weight).abs().max().item() < 1e-5, key


def check_held(ranks: list[dict[str, Any]], kind: str) -> None:
    """Each process held the share that its kind leaves it."""
    told = KINDS[kind]
    engine = "tensor" if kind == "tensor" else told.get("sharding", "ddp").removeprefix("SHARDING_").lower()
    stage = int(engine[-1]) if engine.startswith("zero") else 0
    whole = ranks[0]["model_weights"]
    half = whole // 2
    assert [each["rank"] for each in ranks] == [0, 1] and len({each["process_id"] for each in ranks}) == 2
    batches = {each["first_batch"] for each in ranks}
    assert len(batches) == (1 if kind == "tensor" else 2)
    for each in ranks:
        assert each["engine"] == ENGINES.get(engine, "DeepSpeedEngine") and each["zero_stage"] == stage
        # A norm is too small to be shared by tensor parallelism.
        weights = whole if engine in ("ddp", "zero1", "zero2") else half
        assert weights <= each["weights"] <= weights + 200, each
        states = 2 * (whole if engine == "ddp" else half)
        assert states <= each["optimizer_states"] <= states + 400, each
        assert 0 < each["gradients"] <= (whole if engine == "ddp" else half + 200), each
        parts = told.get("sequence_parallel_size", 1)
        assert each["sequence_length"] * parts == each["row_length"] > 0


def test_the_length_of_the_first_batch_is_kept_though_a_loader_is_ahead(recipes: SimpleNamespace) -> None:
    import torch
    from accelerate.data_loader import prepare_data_loader, skip_first_batches

    from services.trainer.recipes.sequences import Parts

    def collate(rows: list[Any]) -> dict[str, Any]:
        return {"input_ids": torch.stack(rows), "labels": torch.stack(rows)}

    rows = [torch.ones(length, dtype=torch.long) for length in (5, 8, 3, 12)]
    for skipped, length in ((0, 6), (2, 4)):  # as training begins, and goes on
        parts = Parts(2, collate, 0)
        loader = torch.utils.data.DataLoader(rows, batch_size=1, collate_fn=parts)
        loader = prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)
        first = next(iter(skip_first_batches(loader, skipped)))
        assert first["input_ids"].shape[1] * 2 == parts.first == length


def test_processes_with_the_same_rows_are_found_out_unless_rows_repeat(recipes: SimpleNamespace) -> None:
    from services.trainer.recipes.held import Held, have_own_rows

    def ranks(*batches: str) -> list[Held]:
        names = [name for name in Held.__dataclass_fields__ if name != "first_batch"]
        return [Held(**dict.fromkeys(names, 0), first_batch=batch) for batch in batches]

    rows = [{"input_ids": [1, 2]}, {"input_ids": [3]}]
    assert have_own_rows(ranks("a", "b"), rows) and not have_own_rows(ranks("a", "a"), rows)
    assert have_own_rows(ranks("a", "a"), [rows[0], rows[0]])


def test_zero2_trains_as_one_process_does_and_each_held_its_share(
    alone: Callable[..., Path], job_of: Callable[..., Path]
) -> None:
    job = job_of("job", "sft", KINDS["zero2"])
    said = train(job)
    check_same(job, alone("sft"))
    check_held(said["ranks"], "zero2")
    assert said["settings"]["effective_batch_size"] == str(BATCH) and said["metrics"]["rows_left_over"] == 0
    assert not (job / "ranks").exists() and len(progress(job, "checkpoint")) == 1


@pytest.mark.prove
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zero2"])
def test_every_kind_trains_as_one_process_does(
    kind: str, alone: Callable[..., Path], job_of: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    job = job_of("job", "sft", KINDS[kind])
    said = train(job)
    check_same(job, alone("sft"))
    check_held(said["ranks"], kind)
    if kind == "tensor":  # both had all rows, which count once
        assert said["metrics"]["tokens"] == result(alone("sft"))["metrics"]["tokens"]
    AutoModelForCausalLM.from_pretrained(job / "out" / "model")
    assert len((job / "parity.jsonl").read_text().splitlines()) == 5


@pytest.mark.prove
@pytest.mark.parametrize(
    ("recipe", "kind"), [("sft", "ddp"), ("sft", "zero3"), ("sft", "fsdp"), ("dpo", "ddp"), ("dpo", "zero2")]
)
def test_adapters_too(recipe: str, kind: str, alone: Callable[..., Path], job_of: Callable[..., Path]) -> None:
    job = job_of("job", recipe, KINDS[kind], lora={"rank": 4})
    train(job, recipe)
    check_same(job, alone(recipe, lora={"rank": 4}))


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["zero3", "ulysses"])
def test_models_from_nothing_but_text_too(kind: str, alone: Callable[..., Path], job_of: Callable[..., Path]) -> None:
    job = job_of("job", "pretrain", KINDS[kind])
    train(job, "pretrain")
    check_same(job, alone("pretrain"))


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3", "fsdp", "ulysses-zero3"])
def test_a_pause_ends_all_in_the_same_step_and_what_goes_on_is_bit_equal(
    kind: str, job_of: Callable[..., Path]
) -> None:
    whole, job = (job_of(name, "sft", KINDS[kind]) for name in ("whole", "job"))
    train(whole)
    command(job, "pause")
    assert train(job)["outcome"] == "paused"
    assert [line["step"] for line in progress(job, "checkpoint")] == [1]
    (job / "control.json").unlink()
    assert train(job)["outcome"] == "succeeded"
    assert [line["loss"] for line in progress(job, "step")] == [line["loss"] for line in progress(whole, "step")]
    for file in sorted((whole / "out" / "model").glob("*.safetensors")):
        assert file.read_bytes() == (job / "out" / "model" / file.name).read_bytes()


@pytest.mark.prove
def test_a_cancelled_job_ends_in_all_its_processes(job_of: Callable[..., Path]) -> None:
    job = job_of("job", "sft", KINDS["zero3"])
    command(job, "cancel")
    assert train(job)["outcome"] == "cancelled" and not (job / "out").exists()


@pytest.fixture
def running(job_of: Callable[..., Path]) -> Iterator[tuple["subprocess.Popen[bytes]", Path, list[psutil.Process]]]:
    """A job of two processes that trains for long: its launcher, its folder, and its ranks."""
    job = job_of("job", "sft", {"sharding": "SHARDING_ZERO2"}, optimization={"batch_size": 4, "max_steps": 100_000})
    launcher = launch(job)
    try:
        while not (job / "progress.jsonl").exists() or not progress(job, "step"):
            assert launcher.poll() is None, (job / "log.txt").read_text()[-4000:]
            time.sleep(0.05)
        yield launcher, job, psutil.Process(launcher.pid).children()
    finally:
        with suppress(ProcessLookupError):
            launcher.kill()
        launcher.wait()


@pytest.mark.prove
def test_one_that_is_killed_ends_all_and_the_folder_says_which(running) -> None:
    launcher, job, ranks = running
    assert len(ranks) == 2
    next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()
    assert launcher.wait(20) == -signal.SIGKILL  # which the agent takes for a recipe that vanished
    assert not psutil.wait_procs(ranks, 5)[1]
    assert result(job)["error"]["message"].startswith("Process 1 of 2 was killed (SIGKILL)")


@pytest.mark.prove
def test_the_end_of_the_launcher_is_that_of_its_ranks(running) -> None:
    launcher, _, ranks = running
    launcher.kill()
    assert not psutil.wait_procs(ranks, 5)[1]


@pytest.mark.prove
def test_a_mistake_of_all_is_told_once_and_as_what_it_is(job_of: Callable[..., Path]) -> None:
    job = job_of("job", "sft", KINDS["zero1"], optimization={"batch_size": 64, "max_steps": 4})
    assert launch(job).wait() == 1
    error = result(job)["error"]
    assert error["reason"] == "BAD_INPUT" and "48 rows are fewer than one step takes" in error["message"]


@pytest.mark.prove
def test_a_recipe_that_was_started_alone_does_not_train_for_two(job_of: Callable[..., Path]) -> None:
    job = job_of("job", "sft", KINDS["fsdp"])
    module = [sys.executable, "-m", "services.trainer.recipes.sft", str(job)]
    assert subprocess.run(module, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode == 1
    assert "asks for 2 processes, and this is one of 1" in result(job)["error"]["message"]
