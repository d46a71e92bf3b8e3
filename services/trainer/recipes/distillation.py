"""Generalized knowledge distillation: `python -m services.trainer.recipes.distillation JOBDIR`.

A student comes closer to a teacher with the same tokens, token by token, on the answers of the rows and on answers of
its own (Agarwal et al. 2023, arXiv:2306.13649). Knows no service.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # that GKD may change there is ours to know, not a user's
# ruff: noqa: E402

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import kl_div
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed
from trl.experimental.gkd import GKDConfig, GKDTrainer

from services.trainer.recipes.data.conversations import IGNORED, check_answers_only, fitting, prompt_ids
from services.trainer.recipes.data.pairs import parity_prompts, still
from services.trainer.recipes.data.rows import Message, read_conversations
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import end_ids, write_parity
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import have_padding, load_base, load_beside, longest_of
from services.trainer.recipes.models.quantization import quantization_config
from services.trainer.recipes.models.stored import number_of_weights
from services.trainer.recipes.models.tuning import adapter_config, check_targets, save

ADAPTER_DEFAULTS = Optimization(learning_rate=5e-3)
FULL_DEFAULTS = Optimization(learning_rate=1e-3)
MAX_LENGTH = 512
MAX_NEW_TOKENS = 128
MAX_EVAL_ROWS = 256
EVAL_BATCH = 16


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("gkd")
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    conversations = read_conversations(job.train_rows)
    held_out = job.held_out(read_conversations, MAX_EVAL_ROWS)

    set_seed(spec.seed)
    tokenizer, model = load_base(job.base, quantization_config(parameters))
    have_padding(tokenizer)
    teacher = load_teacher(job, tokenizer, model)
    still(model)
    if adapter is not None:
        check_targets(model, adapter)
    max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model, teacher)
    kept, rows = columns(tokenizer, conversations, max_length)
    _, eval_rows = columns(tokenizer, held_out, max_length)
    room = longest_of(None, sys.maxsize, model, teacher) - max(len(row["prompts"]) for row in rows + eval_rows)
    job.settings["max_length"] = max_length

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = gkd(
        {**parameters, "max_new_tokens": min(parameters.get("max_new_tokens") or MAX_NEW_TOKENS, room)},
        trainer_arguments(job, spec, optimization, len(rows), number_of_weights(model), bool(eval_rows)),
        model=model,
        teacher_model=teacher,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
    )
    check_answers_only(tokenizer, trainer.data_collator(rows[:8]), kept[:8])
    metrics = {
        "rows_dropped": float(len(conversations) - len(rows)),
        **_measured(trainer, eval_rows, "_before"),
        **train_or_resume(trainer, job, progress),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    job.report("phase", message="saving")
    metrics |= _measured(trainer, eval_rows)
    kind = save(job, trainer.model, tokenizer)
    asked = [messages[:-1] for messages in held_out or conversations]
    write_parity(job, trainer.model, tokenizer, parity_prompts(tokenizer, asked, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def load_teacher(job: JobDir, tokenizer: PreTrainedTokenizerBase, student: PreTrainedModel) -> PreTrainedModel:
    """The frozen teacher of the job, with as many logits as the student has; what it has beyond that, tables filled up
    to a round size, is cut off. Raises BadInput where a token of one is not the same token of the other.
    """
    if not job.model("teacher").is_dir():
        raise BadInput("teacher_model_version is empty; name the model version to learn from.")
    taught, teacher = load_beside(job, "teacher")
    if taught.get_vocab() != tokenizer.get_vocab() or taught.eos_token != tokenizer.eos_token:
        raise BadInput("The teacher's tokenizer has other tokens than the base's; take a teacher of the same family.")
    if taught.chat_template != tokenizer.chat_template:
        raise BadInput(
            "The teacher's chat template is not the base's, so it was trained on other prompts than it would see; "
            "take a teacher that was trained with the same one."
        )
    width, wanted = (each.config.get_text_config().vocab_size for each in (teacher, student))
    if width < wanted:
        raise BadInput(f"The teacher tells {width} tokens apart and the base {wanted}; take a teacher with as many.")
    if width > wanted:
        teacher.resize_token_embeddings(wanted)
    return teacher


def columns(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]], max_length: int
) -> tuple[list[list[Message]], list[dict[str, list[int]]]]:
    """The conversations of at most `max_length` tokens and, of each, all its tokens, those that count, and those up to
    where the last answer begins. Raises BadInput as `fitting` does.
    """
    kept, rows = fitting(tokenizer, conversations, max_length)
    asked = (prompt_ids(tokenizer, messages[:-1]) for messages in kept)
    return kept, [
        {"input_ids": row.input_ids, "labels": row.labels, "prompts": prompt}
        for row, prompt in zip(rows, asked, strict=True)
    ]


def collate(pad: int, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """One batch: rows padded on the right; prompts, after which answers are sampled, on the left."""
    ids, labels, prompts = ([torch.tensor(row[n]) for row in rows] for n in ("input_ids", "labels", "prompts"))
    return {
        "input_ids": pad_sequence(ids, True, pad),
        "attention_mask": pad_sequence([torch.ones_like(each) for each in ids], True, 0),
        "labels": pad_sequence(labels, True, IGNORED),
        "prompts": pad_sequence(prompts, True, pad, padding_side="left"),
        "prompt_attention_mask": pad_sequence([torch.ones_like(p) for p in prompts], True, 0, padding_side="left"),
    }


class Ready(GKDTrainer):
    """trl's trainer over batches of tokens. trl divides the divergence of answers that were sampled by the number of
    tokens in the answers that they stand for; here it is the mean over the tokens that it was taken of.
    """

    def _get_num_items_in_batch(self, *_: Any) -> None:
        return None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As trl's, with positions as they were in generation: padding before a prompt moves nothing."""
        seen = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        if not (there := seen["attention_mask"])[:, 0].all():
            seen["position_ids"] = (there.cumsum(1) - 1).clamp(min=0)
        given = model(**seen)
        with torch.no_grad():
            taught = self.teacher_model.eval()(**seen)
        loss = self.generalized_jsd_loss(
            student_logits=given.logits[:, :-1],
            teacher_logits=taught.logits[:, :-1],
            labels=inputs["labels"][:, 1:],
            beta=self.beta,
            num_items_in_batch=num_items_in_batch,
        )
        return (loss, given) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        model.eval()  # answers are sampled by the model as it is served; the step itself trains again
        given = inputs["attention_mask"].sum()
        loss = super().training_step(model, inputs, num_items_in_batch)
        more = inputs["attention_mask"].sum() - given  # the trainer has counted the rows already
        self.state.num_input_tokens_seen += int(self.accelerator.gather(more).sum())
        return loss


def gkd(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """The trainer of a student; sampling ends with the turn."""
    shares = {"lmbda": 0.5, "beta": 0.5, **{k: v for k in ("lmbda", "beta") if (v := parameters.get(k)) is not None}}
    config = GKDConfig(
        **arguments,
        **shares,
        temperature=parameters.get("temperature") or 0.9,
        max_new_tokens=parameters["max_new_tokens"],
        seq_kd=bool(parameters.get("seq_kd")),
        max_length=None,  # what is too long is left out before
        disable_dropout=False,
    )
    tokenizer = given["processing_class"]
    trainer = Ready(args=config, data_collator=lambda rows: collate(tokenizer.pad_token_id, rows), **given)
    trainer.generation_config.eos_token_id = end_ids(trainer.model, tokenizer)
    return trainer


def _measured(trainer: Trainer, rows: Sequence[dict[str, Any]], when: str = "") -> dict[str, float]:
    """`eval_teacher_divergence`, the mean of KL(teacher ‖ student) over the tokens of held-out answers, in nats."""
    if not rows:
        return {}
    batches = (trainer.data_collator(rows[i : i + EVAL_BATCH]) for i in range(0, len(rows), EVAL_BATCH))
    found = torch.cat([divergences(trainer.model, trainer.teacher_model, batch) for batch in batches])
    return {f"eval_teacher_divergence{when}": found.mean().item()}


@torch.no_grad()
def divergences(student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """KL(teacher ‖ student) at each token of a batch that counts: (tokens,) nats, float32 on the CPU."""
    student.eval()
    counted = batch["labels"][:, 1:] != IGNORED
    seen = {name: batch[name].to(student.device) for name in ("input_ids", "attention_mask")}
    own, taught = (m(**seen).logits[:, :-1][counted].float().log_softmax(-1) for m in (student, teacher))
    return kl_div(own, taught, reduction="none", log_target=True).sum(-1).cpu()


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
