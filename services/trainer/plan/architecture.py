"""The weights of a model counted from its config.json; refuses every model whose layers it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from services.trainer.plan.fields import Linear, UnplannableError, count, numbers
from services.trainer.plan.tower import Sight, sight

#: What stands on top: a value for each token of the vocabulary, one for each class of a text or of each of its tokens,
#: or nothing.
Head = Literal["tokens", "classes", "tags", "none"]
DECODERS = ("llama", "mistral", "qwen2", "qwen3")
ENCODERS = ("bert", "roberta", "xlm-roberta")
SIGHTED = ("qwen2_vl", "qwen2_5_vl")
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
#: What transformers takes where a config.json does not tell; None: as many as heads.
KV_HEADS = {"llama": None, "mistral": 8, "qwen2": 32, "qwen3": 32, "qwen2_vl": 8, "qwen2_5_vl": 8}


@dataclass(frozen=True)
class Architecture:
    """Widths, and how many numbers each kind of weight has in the whole model."""

    kind: str
    hidden: int
    layers: int
    query: int
    key_value: int
    intermediate: int
    vocabulary: int
    positions: int
    linears: tuple[Linear, ...]
    embedding: int
    norms: int
    #: Numbers of the head that are its own; 0 where it shares the embedding's.
    head: int
    head_kind: Head
    #: Heads whose attention is kept whole because some of it is dropped out; 0 where none is.
    dropped_heads: int = 0
    #: What makes vectors of images, and brings them to the layers.
    sight: Sight | None = None

    @property
    def encoder(self) -> bool:
        """Whether every token sees all others."""
        return self.kind in ENCODERS

    @property
    def attention(self) -> int:
        """Queries, keys, values and outputs."""
        return numbers(each for each in self.linears if each.name in _ATTENTION)

    @property
    def mlp(self) -> int:
        """Everything between the attentions, and an encoder's pooler."""
        return numbers(each for each in self.linears if each.name not in _ATTENTION)

    @property
    def parameters(self) -> int:
        """All numbers, shared ones once."""
        seen = self.sight.tower + self.sight.projector if self.sight else 0
        return self.embedding + self.attention + self.mlp + self.norms + self.head + seen

    @property
    def linear_weights(self) -> int:
        """The matrices of the layers, which adapters change and quantization takes."""
        return sum(each.weights for each in self.linears)

    @property
    def multiplied(self) -> int:
        """Numbers that each token is multiplied with: the layers and the head, shared or not."""
        return self.linear_weights + (self.vocabulary * self.hidden if self.head_kind == "tokens" else self.head)

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's numbers."""
        return self.head_kind == "tokens" and not self.head

    @property
    def largest(self) -> int:
        """Numbers of the largest tensor."""
        return max(self.vocabulary * self.hidden, *(each.inputs * each.outputs for each in self.linears))


_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "query", "key", "value", "attention.output.dense")


def architecture(config: Mapping[str, Any], head: Head = "tokens", classes: int = 0) -> Architecture:
    """The model of a config.json with this head. Raises UnplannableError."""
    kind = config.get("model_type")
    if kind not in DECODERS + ENCODERS + SIGHTED:
        raise UnplannableError(
            "model_type",
            f"is `{kind}`, whose layers the planner does not know; it knows {', '.join(DECODERS + ENCODERS + SIGHTED)}",
        )
    if kind in SIGHTED:
        config = {**config, **(config.get("text_config") or {}), "vision_config": config.get("vision_config") or {}}
    if config.get("quantization_config"):
        raise UnplannableError("quantization_config", "is given; the planner knows models stored as floats")
    if missing := [name for name in NEEDED if not count(config, name)]:
        raise UnplannableError(missing[0], "is not in config.json as a positive whole number")
    if kind not in ENCODERS:
        return _decoder(config, str(kind), head, classes)
    if head == "tokens":
        raise UnplannableError("model_type", f"is `{kind}`, an encoder, and the recipe trains models that write")
    return _encoder(config, str(kind), head, classes)


def _decoder(config: Mapping[str, Any], kind: str, head: Head, classes: int) -> Architecture:
    """Grouped-query attention and a gated MLP (Touvron et al. 2023, arXiv:2307.09288; Qwen3, arXiv:2505.09388)."""
    vocabulary, hidden, layers, heads, inner = (count(config, name) for name in NEEDED)
    size = count(config, "head_dim") or (128 if kind == "qwen3" else hidden // heads)
    query = heads * size
    key_value = (count(config, "num_key_value_heads") or KV_HEADS[kind] or heads) * size
    biased = kind in ("qwen2", *SIGHTED) or (kind != "mistral" and bool(config.get("attention_bias")))
    inside = kind == "llama" and bool(config.get("mlp_bias"))
    shapes = (
        ("q_proj", hidden, query, biased),
        ("k_proj", hidden, key_value, biased),
        ("v_proj", hidden, key_value, biased),
        ("o_proj", query, hidden, biased and kind not in ("qwen2", *SIGHTED)),
        ("gate_proj", hidden, inner, inside),
        ("up_proj", hidden, inner, inside),
        ("down_proj", inner, hidden, inside),
    )
    own = {"tokens": 0 if config.get("tie_word_embeddings") else vocabulary * hidden}
    own |= {"classes": hidden * classes, "tags": (hidden + 1) * classes}
    return Architecture(
        kind=kind,
        hidden=hidden,
        layers=layers,
        query=query,
        key_value=key_value,
        intermediate=inner,
        vocabulary=vocabulary,
        positions=count(config, "max_position_embeddings"),
        linears=tuple(Linear(name, wide, out, layers, bias) for name, wide, out, bias in shapes),
        embedding=vocabulary * hidden,
        norms=layers * (2 * hidden + (2 * size if kind == "qwen3" else 0)) + hidden,
        head=own.get(head, 0),
        head_kind=head,
        sight=sight(config["vision_config"], kind, hidden) if kind in SIGHTED else None,
    )


def _encoder(config: Mapping[str, Any], kind: str, head: Head, classes: int) -> Architecture:
    """Devlin et al. 2019 (arXiv:1810.04805); RoBERTa's head for classes has a layer in place of BERT's pooler."""
    vocabulary, hidden, layers, heads, inner = (count(config, name) for name in NEEDED)
    positions = count(config, "max_position_embeddings")
    if not positions:
        raise UnplannableError("max_position_embeddings", "is not in config.json as a positive whole number")
    types = count(config, "type_vocab_size") or (2 if kind == "bert" else 1)
    shapes = [(name, hidden, hidden, layers) for name in ("query", "key", "value", "attention.output.dense")]
    shapes += [("intermediate.dense", hidden, inner, layers), ("output.dense", inner, hidden, layers)]
    pooled = head != "tags" and (kind == "bert" or head == "none")
    if pooled:
        shapes.append(("pooler.dense", hidden, hidden, 1))
    dense = hidden * hidden + hidden if head == "classes" and not pooled else 0
    return Architecture(
        kind=kind,
        hidden=hidden,
        layers=layers,
        query=hidden,
        key_value=hidden,
        intermediate=inner,
        vocabulary=vocabulary,
        positions=positions,
        linears=tuple(Linear(name, wide, out, count, bias=True) for name, wide, out, count in shapes),
        embedding=(vocabulary + positions + types) * hidden,
        norms=layers * 4 * hidden + 2 * hidden,
        head=dense + (hidden + 1) * classes if head in ("classes", "tags") else 0,
        head_kind=head,
        dropped_heads=heads if config.get("attention_probs_dropout_prob", 0.1) else 0,
    )
