"""Supervised training whose head computes logits of the tokens that count alone, a chunk at a time; knows no rows.

TRL's head computes those of prompts and padding too where there is no Triton, and computes each twice; on CPUs with a
large vocabulary that is most of a step.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer
from trl import SFTTrainer

from services.trainer.recipes.data.conversations import IGNORED

#: Logits of a chunk, 4 bytes each, where the spec does not say how many tokens it has; not more than so many tokens.
CHUNK_LOGITS, MOST_TOKENS, LEAST_TOKENS = 1 << 24, 4096, 128
#: What a configuration says of logits that are not simply the product with the head.
SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
#: What the largest logit is made for the proof, as a base that knows nothing has none that a cap would change.
LOUD, SAME = 100.0, 1e-4


class TokenTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the loss of this file, where the model's head is one whole matrix; else with its own.

    As there the loss is the mean over the tokens of an update that count, those of all its batches. What neither of
    them knows of has the loss of the model itself: heads that do more, and AdaLoRA, whose regularizer peft adds there.
    """

    def __init__(self, *args: Any, chunk_tokens: int = 0, **given: Any) -> None:
        super().__init__(*args, **given)
        self._base = self.accelerator.unwrap_model(self.model)
        self._base = self._base.get_base_model() if hasattr(self._base, "get_base_model") else self._base
        self._own_loss = has_plain_head(self._base) and not is_one_matrix(self._base)
        tuned = getattr(self.accelerator.unwrap_model(self.model), "peft_config", {}).get("default")
        self._regularized = hasattr(tuned, "orth_reg_weight")
        if self._regularized:  # peft adds it to each batch of an update
            tuned.orth_reg_weight /= self.args.gradient_accumulation_steps
        if has_plain_head(self._base) and not self._own_loss:
            usual = CHUNK_LOGITS // self._base.get_output_embeddings().out_features
            add_token_loss(self._base, chunk_tokens or min(MOST_TOKENS, max(LEAST_TOKENS, usual)))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self._own_loss or (self._regularized and model.training):
            return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
        if return_outputs or self.args.loss_type != "nll" or not has_plain_head(self._base):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        counted = num_items_in_batch
        if counted is None:
            counted = (inputs["labels"][:, 1:] != IGNORED).sum()
        loss = model(**inputs, token_loss=True)["summed"] / torch.as_tensor(counted).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # Whose mean is taken; those that share matrices have the same rows, which are counted once.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        return loss

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """transformers counts the rows of processes that share matrices once for each of them."""
        before = self.state.num_input_tokens_seen
        super()._track_num_input_tokens(inputs)
        self.state.num_input_tokens_seen = before + (self.state.num_input_tokens_seen - before) // self.get_tp_size()


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are hidden states times one matrix that lies here as a whole, and nothing more."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in SCALES)
    if scaled or getattr(config, "output_router_logits", False) or not isinstance(head, torch.nn.Linear):
        return False
    return type(head) is torch.nn.Linear and not isinstance(head.weight, DTensor) and not hasattr(head.weight, "ds_id")


def is_one_matrix(model: PreTrainedModel) -> bool:
    """Whether the model's logits are in fact its last hidden states times its head, however large they are."""
    head, training = model.get_output_embeddings(), model.training
    ids = torch.arange(8, device=head.weight.device)[None]
    louder = head.register_forward_hook(lambda _, __, found: found * (LOUD / found.abs().max().clamp(min=1e-6)))
    model.eval()
    try:
        with torch.no_grad():
            found = model(input_ids=ids, use_cache=False).logits.float()
            expected = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    finally:
        louder.remove()
        model.train(training)
    return bool((found - expected).abs().max() <= SAME * expected.abs().max())


def add_token_loss(model: PreTrainedModel, chunk_tokens: int) -> None:
    """`model(..., labels=…, token_loss=True)` gives {"summed": loss over all labels}; without it all is as it was."""
    whole = model.forward

    @functools.wraps(type(model).forward)  # `generate` looks at its parameters
    def forward(self: PreTrainedModel, *args: Any, token_loss: bool = False, **given: Any) -> Any:
        if not token_loss:
            return whole(*args, **given)
        labels, moved = given.pop("labels"), given.pop("shift_labels", None)
        hidden = self.base_model(*args, **{**given, "use_cache": False}).last_hidden_state
        if moved is None:  # else who cut the sequence has done it
            hidden, moved = hidden[:, :-1], labels[:, 1:]
        labels = moved
        counts, head = labels != IGNORED, self.get_output_embeddings()
        loss = LinearCrossEntropy.apply(hidden[counts], head.weight, head.bias, labels[counts], chunk_tokens)
        return {"summed": loss}

    model.forward = types.MethodType(forward, model)


class LinearCrossEntropy(torch.autograd.Function):
    """The summed cross entropy of `hidden @ weight.T + bias` (tokens, width) with `targets` (tokens,), in nats.

    Gradients are made with the loss, chunk by chunk, so logits of one chunk are held and none is computed twice (Hsu
    et al. 2024, arXiv:2410.10989, 3.2).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk_tokens: int
    ) -> Tensor:
        device = hidden.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        total = torch.zeros((), device=hidden.device)
        wanted: Sequence[bool] = ctx.needs_input_grad[:3]
        made = [
            torch.zeros_like(x, dtype=torch.float32) if w else None
            for x, w in zip((hidden, weight, bias), wanted, strict=True)
        ]
        with torch.autocast(device, enabled=False):
            head = weight.to(kind)
            for at in range(0, len(hidden), chunk_tokens):
                part, goal = hidden[at : at + chunk_tokens].to(kind), targets[at : at + chunk_tokens, None]
                logits = torch.nn.functional.linear(part, head, None if bias is None else bias.to(kind)).float()
                normalizer = logits.logsumexp(-1, keepdim=True)
                total += (normalizer - logits.gather(1, goal)).sum()
                if any(wanted):
                    grad = logits.sub_(normalizer).exp_().scatter_add_(1, goal, -torch.ones_like(normalizer))
                    _gradients(grad, part, head, made, at)
        ctx.save_for_backward(*made)
        ctx.kinds = [None if x is None else x.dtype for x in (hidden, weight, bias)]
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        found = zip(ctx.saved_tensors, ctx.kinds, strict=True)
        return (*(None if made is None else (made * scale).to(kind) for made, kind in found), None, None)


def _gradients(grad: Tensor, part: Tensor, head: Tensor, made: list[Tensor | None], at: int) -> None:
    """Adds what a chunk's gradient by its logits (tokens, vocabulary) gives to those by hidden, weight and bias."""
    hidden, weight, bias = made
    if hidden is not None:
        hidden[at : at + len(part)] = grad.to(head.dtype) @ head
    if weight is not None:
        weight.addmm_(grad.t(), part.float())
    if bias is not None:
        bias += grad.sum(0)
