"""Keeps documents apart that lie in one sequence without padding; knows neither rows nor a trainer.

Attention goes document by document, each with torch's causal kernel: the mask of tokens by tokens that transformers
makes of `position_ids` is n times the work for n documents (12 times the time for 32 of 47 tokens on a CPU).
"""

from __future__ import annotations

import inspect
from itertools import accumulate
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

#: What transformers calls the attention of this file.
APART = "documents"
#: How far logits of a document may move by its neighbors, in units of the largest: rounding of sums in another order.
TOLERANCE = 1e-4
CHECKED_TOKENS = 32


def keep_apart(model: PreTrainedModel) -> None:
    """From now on documents in one sequence do not see each other, where a batch tells `cu_seq_lens_q`."""
    AttentionInterface.register(APART, document_attention)
    AttentionMaskInterface.register(APART, _mask)
    model.set_attn_implementation(APART)


def together_again(model: PreTrainedModel | PeftModel) -> None:
    """Undoes `keep_apart`; what is saved of a model must not name an attention that no other program has."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(base.config, "_attn_implementation", "") == APART:
        base.set_attn_implementation("sdpa")


def can_join(model: PreTrainedModel) -> bool:
    """Whether the architecture computes attention by transformers' interface, causal and over all that is before."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    accepts = inspect.signature(type(model.base_model).forward).parameters.values()
    return (
        config._attn_implementation == "sdpa"
        and not config.is_encoder_decoder
        and kinds <= {"full_attention"}
        and (bool(kinds) or not window)
        and any(each.kind is each.VAR_KEYWORD for each in accepts)
    )


def can_stay_apart(model: PreTrainedModel, documents: list[list[int]]) -> bool:
    """Whether logits of two documents in one sequence are those of each alone: the proof, on the model itself."""
    shown = [ids[:CHECKED_TOKENS] for ids in documents[:2]]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = model(**joined(shown, model.device), use_cache=False).logits[0].float()
        alone = [model(input_ids=_row(ids, model.device), use_cache=False).logits[0].float() for ids in shown]
    model.train(was_training)
    expected = torch.cat(alone)
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1.0))


def joined(documents: list[list[int]], device: torch.device) -> dict[str, Any]:
    """Token ids of documents as one sequence: what a model is given to keep them apart."""
    lengths = [len(ids) for ids in documents]
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    return {
        "input_ids": _row([token for ids in documents for token in ids], device),
        "position_ids": positions[None],
        **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds},
        **{"max_length_q": max(lengths), "max_length_k": max(lengths)},
    }


def documents_of(batch: dict[str, Any], column: str) -> list[Tensor]:
    """A column of a collated batch by documents; of a batch that is padded by rows."""
    if "cu_seq_lens_q" not in batch:
        return list(batch[column])
    return list(batch[column][0].split(batch["cu_seq_lens_q"].diff().tolist()))


def document_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention inside each document of a sequence; `query` (1, heads, tokens, size), out (1, tokens, heads, size).

    Without bounds of documents it is transformers' own.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(each.split(lengths, 2) for each in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, None, **given)[0] for part in parts], 1), None


def _mask(**given: Any) -> Tensor | None:
    """transformers' mask of a padded batch. A sequence of documents needs none, nor has any other row without one."""
    return None if given.get("attention_mask") is None and given["q_length"] > 1 else sdpa_mask(**given)


def _row(ids: list[int], device: torch.device) -> Tensor:
    return torch.tensor([ids], device=device)
