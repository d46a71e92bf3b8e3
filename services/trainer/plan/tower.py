"""The vision tower of a model and the projector behind it, counted from its config.json; knows no language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.trainer.plan.fields import Linear, UnplannableError, count, numbers


@dataclass(frozen=True)
class Sight:
    """A vision tower and the projector behind it: how many numbers each has, and the widths of the tower's blocks."""

    tower: int
    projector: int
    blocks: int
    width: int
    inner: int
    #: Matrices between which a block puts its gate; 2 where it has none.
    matrices: int
    #: Patches that become one token.
    patches: int
    linears: tuple[Linear, ...]
    of_projector: tuple[Linear, ...]


def sight(config: Mapping[str, Any], kind: str, hidden: int) -> Sight:
    """A vision transformer over patches whose neighbors are merged (Wang et al. 2024, arXiv:2409.12191, 2.1); that of
    Qwen2.5-VL (arXiv:2502.13923, 2.1) has gates, and norms of RMS without biases.
    """
    gated = kind == "qwen2_5_vl"
    width = _of_sight(config, "hidden_size" if gated else "embed_dim")
    inner = _of_sight(config, "intermediate_size") if gated else width * (count(config, "mlp_ratio") or 4)
    blocks, merge = _of_sight(config, "depth"), count(config, "spatial_merge_size") or 2
    shapes = [("attn.qkv", width, 3 * width), ("attn.proj", width, width)]
    names = ("gate_proj", "up_proj") if gated else ("fc1",)
    shapes += [(f"mlp.{name}", width, inner) for name in names]
    shapes += [("mlp.down_proj" if gated else "mlp.fc2", inner, width)]
    linears = tuple(Linear(name, wide, out, blocks, bias=True) for name, wide, out in shapes)
    patch, channels = count(config, "patch_size") or 14, count(config, "in_channels") or 3
    embedding = channels * (count(config, "temporal_patch_size") or 2) * patch**2 * width
    norms = (1 if gated else 2) * width  # of one
    merged = width * merge**2
    of_projector = (Linear("mlp.0", merged, merged, 1, bias=True), Linear("mlp.2", merged, hidden, 1, bias=True))
    return Sight(
        tower=embedding + numbers(linears) + 2 * blocks * norms,
        projector=norms + numbers(of_projector),
        blocks=blocks,
        width=width,
        inner=inner,
        matrices=4 if gated else 2,
        patches=merge**2,
        linears=linears,
        of_projector=of_projector,
    )


def _of_sight(config: Mapping[str, Any], name: str) -> int:
    if not (found := count(config, name)):
        raise UnplannableError(f"vision_config.{name}", "is not in config.json as a positive whole number")
    return found
