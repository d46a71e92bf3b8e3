"""Recipes shared out among two processes: the same losses as one, what each held, and how they end together."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.recipes.jobs import command, progress, result
from tests.recipes.sharing import BATCH, KINDS, ROOT, Alone, check_held, check_same, job_on, launch, train

pytestmark = pytest.mark.training


@pytest.fixture
def job_of(shareable: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a job: `job_of("name", "sft", {"devices": 2})`."""

    def make(name: str, recipe: str = "sft", distribution: dict[str, Any] | None = None, **parameters: Any) -> Path:
        told = {"devices": 2, **(distribution or {})}
        shares = told["devices"] // told.get("tensor_parallel_size", 1) // told.get("sequence_parallel_size", 1)
        return job_on(shareable, tmp_path / name, recipe, shares, distribution=told, **parameters)

    return make


def test_the_length_of_the_first_batch_is_kept_though_a_loader_is_ahead(recipes: SimpleNamespace) -> None:
    import torch
    from accelerate.data_loader import prepare_data_loader, skip_first_batches

    from services.trainer.recipes.distributed.sequences import Parts

    def collate(rows: list[Any]) -> dict[str, Any]:
        return {"input_ids": torch.stack(rows), "labels": torch.stack(rows)}

    rows = [torch.ones(length, dtype=torch.long) for length in (5, 8, 3, 12)]
    for skipped, length in ((0, 6), (2, 4)):  # as training begins, and goes on
        parts = Parts(2, collate, 0)
        loader = torch.utils.data.DataLoader(rows, batch_size=1, collate_fn=parts)
        loader = prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)
        first = next(iter(skip_first_batches(loader, skipped)))
        assert first["input_ids"].shape[1] * 2 == parts.first == length


@pytest.mark.parametrize("by_length", [False, True], ids=["drawn", "by length"])
@pytest.mark.parametrize("skipped", range(5))
def test_an_epoch_that_goes_on_has_the_order_that_it_began_with(
    recipes: SimpleNamespace, by_length: bool, skipped: int
) -> None:
    """Of two processes, as transformers 5.19 tells an epoch to what accelerate 1.15 makes of their rows."""
    from accelerate.data_loader import skip_first_batches

    orders = []
    for process in (0, 1):
        whole, later = loader_of(process, by_length), loader_of(process, by_length)
        epochs = [drawn(whole, epoch) for epoch in range(3)]
        assert drawn(skip_first_batches(later, skipped), 1) == epochs[1][skipped:]
        assert drawn(later, 2) == epochs[2]
        orders.append(epochs)
    for first, second in zip(*orders, strict=True):
        seen = [row for batch in (*first, *second) for row in batch]
        assert len(first) == len(second) == 5 and sorted(seen) == list(range(20))
    assert len({str(epoch) for epoch in orders[0]}) == 3


def loader_of(process: int, by_length: bool) -> Any:
    """What one of two processes draws its batches of two of 20 rows from."""
    import torch
    from accelerate.data_loader import prepare_data_loader

    from services.trainer.recipes.distributed.shared import take_whole_batches
    from services.trainer.recipes.learning.bucketing import ByLength

    rows = list(range(20))
    sampler = ByLength(2, [row % 7 + 1 for row in rows], 7) if by_length else torch.utils.data.RandomSampler(rows)
    loader = torch.utils.data.DataLoader(rows, batch_size=2, sampler=sampler, collate_fn=list)
    given = {"num_processes": 2, "process_index": process, "put_on_device": False, "data_seed": 7}
    trainer = SimpleNamespace(args=SimpleNamespace())
    trainer.get_train_dataloader = lambda: prepare_data_loader(loader, use_seedable_sampler=True, **given)
    take_whole_batches(trainer)
    return trainer.get_train_dataloader()


def drawn(loader: Any, epoch: int) -> list[list[int]]:
    """The batches of an epoch, as a trainer begins it."""
    loader.set_epoch(epoch)
    return list(loader)


def test_processes_with_the_same_rows_are_found_out_unless_rows_repeat(recipes: SimpleNamespace) -> None:
    from services.trainer.recipes.distributed.held import Held, have_own_rows

    def ranks(*batches: str) -> list[Held]:
        names = [name for name in Held.__dataclass_fields__ if name != "first_batch"]
        return [Held(**dict.fromkeys(names, 0), first_batch=batch) for batch in batches]

    rows = [{"input_ids": [1, 2]}, {"input_ids": [3]}]
    assert have_own_rows(ranks("a", "b"), rows) and not have_own_rows(ranks("a", "a"), rows)
    assert have_own_rows(ranks("a", "a"), [rows[0], rows[0]])


def test_zero2_trains_as_one_process_does_and_each_held_its_share(
    shareable: Path, alone: Alone, job_of: Callable[..., Path]
) -> None:
    job = job_of("job", "sft", KINDS["zero2"])
    said = train(job)
    check_same(job, alone(shareable, "sft"))
    check_held(said, "zero2")
    assert said["settings"]["effective_batch_size"] == str(BATCH) and said["metrics"]["rows_left_over"] == 0
    assert not (job / "ranks").exists() and len(progress(job, "checkpoint")) == 1


@pytest.mark.prove
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zero2"])
def test_every_kind_trains_as_one_process_does(
    kind: str, shareable: Path, alone: Alone, job_of: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    job = job_of("job", "sft", KINDS[kind])
    said = train(job)
    check_same(job, alone(shareable, "sft"))
    check_held(said, kind)
    if kind == "tensor":  # both had all rows, which count once
        assert said["metrics"]["tokens"] == result(alone(shareable, "sft"))["metrics"]["tokens"]
    AutoModelForCausalLM.from_pretrained(job / "out" / "model")
    assert len((job / "parity.jsonl").read_text().splitlines()) == BATCH


@pytest.mark.prove
@pytest.mark.parametrize(
    ("recipe", "kind"),
    [("sft", "ddp"), ("sft", "zero3"), ("sft", "fsdp"), ("dpo", "ddp"), ("dpo", "zero2"), ("kto", "ddp")],
)
def test_adapters_too(recipe: str, kind: str, shareable: Path, alone: Alone, job_of: Callable[..., Path]) -> None:
    job = job_of("job", recipe, KINDS[kind], lora={"rank": 4})
    train(job)
    check_same(job, alone(shareable, recipe, lora={"rank": 4}))


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["zero3", "ulysses"])
def test_models_from_nothing_but_text_too(
    kind: str, shareable: Path, alone: Alone, job_of: Callable[..., Path]
) -> None:
    job = job_of("job", "pretrain", KINDS[kind])
    train(job)
    check_same(job, alone(shareable, "pretrain"))


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
@pytest.mark.parametrize("performance", [{}, {"group_by_length": True}], ids=["drawn", "by length"])
def test_what_goes_on_in_the_midst_of_a_later_epoch_is_bit_equal(
    performance: dict[str, Any], job_of: Callable[..., Path]
) -> None:
    """Epochs are of six updates, and the newest checkpoint is of the eighth."""
    plan = {"learning_rate": 0.01, "batch_size": BATCH // 2, "max_steps": 13}
    given = {"optimization": plan, "checkpoint_every_steps": 8, "performance": performance}
    whole, job = (job_of(name, "sft", KINDS["ddp"], **given) for name in ("whole", "job"))
    train(whole)
    shutil.copytree(whole / "checkpoints", job / "checkpoints")
    train(job)
    later = [line["loss"] for line in progress(job, "step")]
    assert len(later) == 5 and later == [line["loss"] for line in progress(whole, "step")][8:]
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
