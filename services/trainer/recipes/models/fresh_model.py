"""A tokenizer and a small Qwen3 model made from nothing but texts; knows no job."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from services.trainer.recipes.job.failures import BadInput

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML without a default system prompt. {% generation %} marks what the assistant says, with its end token.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|im_start|>assistant\\n' -}}
{%- generation -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endgeneration -%}
{{- '\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class ModelShape:
    """Widths and depths; `kv_heads` 0 means as many as `heads`."""

    hidden_size: int = 192
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    vocab_size: int = 2048
    max_position_embeddings: int = 512

    @classmethod
    def given(cls, parameters: dict[str, Any]) -> "ModelShape":
        """The default shape, or exactly the one the spec gives. Raises BadInput where it cannot be built."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(parameters) - known):
            raise BadInput(f"shape has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}.")
        shape = cls(**parameters)
        if shape.hidden_size % shape.heads or (shape.hidden_size // shape.heads) % 2:
            raise BadInput(f"hidden_size {shape.hidden_size} must be an even multiple of heads {shape.heads}.")
        if shape.kv_heads and shape.heads % shape.kv_heads:
            raise BadInput(f"kv_heads {shape.kv_heads} must divide heads {shape.heads}.")
        if shape.vocab_size < 300:
            raise BadInput(f"vocab_size is {shape.vocab_size}; a byte-level tokenizer needs at least 300.")
        return shape


def train_tokenizer(texts: Iterable[str], shape: ModelShape) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Radford et al. 2019), so that any text round-trips; digits stand alone.

    A document ends with the token that ends a turn: the model then knows it before the first conversation.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=shape.vocab_size,
            special_tokens=[PAD, TURN, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=shape.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )


def fresh_model(tokenizer: PreTrainedTokenizerFast, shape: ModelShape) -> Qwen3ForCausalLM:
    """A Qwen3 model (arXiv:2505.09388) with random float32 weights; torch's seed decides them."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=3 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        head_dim=shape.hidden_size // shape.heads,
        max_position_embeddings=shape.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None
    )
    return model
