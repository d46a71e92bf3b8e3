"""Puts what follows a video where serving engines put it; knows no row.

Models of Qwen-VL's kind count in time, height and width, and a text after an image or a video starts one past the
largest of these (Wang et al. 2024, arXiv:2409.12191, 2.1). So do vLLM and transformers 4; transformers 5.19 leaves time
out, and a video of more steps than patches of a side would be trained with other positions than it is served with.
"""

from inspect import signature
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

#: What a processor calls the tokens of a video in `mm_token_type_ids`.
VIDEO = 2


def count_time(model: PreTrainedModel) -> None:
    """Has a model count the steps of videos, where it counts in three directions at all."""
    for module in model.modules():
        if (own := getattr(module, "get_rope_index", None)) is not None:
            module.get_rope_index = _counting(own)


def _counting(own: Any) -> Any:
    told = signature(own)

    def positions(*given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        found, deltas = own(*given, **named)
        asked = told.bind(*given, **named).arguments
        kinds = asked.get("mm_token_type_ids")
        if kinds is not None and asked.get("video_grid_thw") is not None:
            shift(found, deltas, kinds, asked.get("attention_mask"))
        return found, deltas

    return positions


def shift(positions: Tensor, deltas: Tensor, kinds: Tensor, mask: Tensor | None) -> None:
    """Moves what follows videos on, in place: positions are 3 × rows × tokens, kinds and mask rows × tokens.

    `deltas`, rows × 1, are how far the positions of a row run ahead of its number of tokens.
    """
    for row, of_row in enumerate(kinds):
        there = slice(None) if mask is None else mask[row].bool()
        counted, video = positions[:, row, there], of_row[there] == VIDEO
        for end in (video[:-1] & ~video[1:]).nonzero().flatten().tolist():
            counted[:, end + 1 :] += max(0, int(counted[:, : end + 1].max()) + 1 - int(counted[:, end + 1].min()))
        positions[:, row, there] = counted
        deltas[row] = counted.max() + 1 - counted.shape[1]
