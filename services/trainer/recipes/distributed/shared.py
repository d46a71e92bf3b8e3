"""Trains as one of several processes, or as the only one, and leaves the leader with a whole model; knows no task."""

from pathlib import Path
from typing import Any

from accelerate.data_loader import BatchSamplerShard
from transformers import Trainer

from services.trainer.recipes.distributed.distribution import join
from services.trainer.recipes.distributed.held import Witness
from services.trainer.recipes.distributed.sequences import share_sequences
from services.trainer.recipes.distributed.whole import put_together, shell
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.learning.progress import ProgressCallback


def train_shared(trainer: Trainer, job: JobDir, progress: ProgressCallback, checkpoint: Path | None) -> None:
    """Trains to the end or to a command. Where it was not done as the spec shares it out, raises RecipeError.

    Afterwards `trainer.model` is whole on the leader; the others have done their part, and `progress.stopped` says so.
    """
    asked, resumed = join(job, job.spec()), str(checkpoint) if checkpoint else None
    if asked.devices == 1:
        trainer.train(resume_from_checkpoint=resumed)
        return
    take_whole_batches(trainer)
    parts = share_sequences(trainer, asked.sequence) if asked.sequence > 1 else None
    empty = shell(trainer.model) if asked.engine != "ddp" else None
    # First of all: what is not as it was asked writes no checkpoint.
    trainer.callback_handler.callbacks.insert(0, Witness(trainer, asked, job, parts))
    trainer.train(resume_from_checkpoint=resumed)
    if progress.stopped is None:
        if trainer.compute_metrics is not None and trainer.eval_dataset is not None:
            trainer.evaluate()  # `last_evaluation` finds it: the leader could not do so alone
        whole = put_together(trainer, asked, job, empty)
        if whole is None:
            progress.stopped = "succeeded"
        else:
            trainer.model = whole


def take_whole_batches(trainer: Trainer) -> None:
    """Lets a trainer leave out rows that do not fill a batch of every process, in training alone, and take those of an
    epoch in that epoch's order, also where it goes on in the midst of one.

    accelerate would fill batches up with rows that have been seen, and held-out rows are to be counted all.
    """
    batches = trainer.get_train_dataloader

    def whole() -> Any:
        trainer.args.dataloader_drop_last = True
        try:
            loader = batches()
        finally:
            trainer.args.dataloader_drop_last = False
        if isinstance(shard := loader.batch_sampler, BatchSamplerShard):
            # Where a loader with batches to skip looks for what to tell the epoch; accelerate 1.15 puts only random
            # samplers there, and rows of another would come in the order of the first epoch again.
            shard.sampler = shard.batch_sampler.sampler
        return loader

    trainer.get_train_dataloader = whole
