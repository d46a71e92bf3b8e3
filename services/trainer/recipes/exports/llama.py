"""One GGUF file, for llama.cpp and its kin: `python -m services.trainer.recipes.exports.llama JOBDIR`.

Written by the package `gguf`, in its words for architectures and tensors, as F16 or Q8_0; vectors stay float32. The
file is read again and its weights are put to the source's rows. Knows no service.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput, RecipeError
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.exports.drift import GGUF, Likelihoods, judged, logits_of
from services.trainer.recipes.exports.source import (
    ROWS,
    Source,
    asked,
    columns,
    held_out,
    load,
    longest,
    told_size,
    weight_bytes,
)
from services.trainer.recipes.exports.words import Words, spoken, words_of

FILE = "model.gguf"
#: By transformers' name of an architecture gguf's.
ARCHITECTURES = {name: gguf.MODEL_ARCH[name.upper()] for name in ("llama", "qwen2", "qwen3")}
#: Weights of this many numbers share a scale in Q8_0.
BLOCK = 32
TYPES = {16: gguf.GGMLQuantizationType.F16, 8: gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {16: gguf.LlamaFileType.MOSTLY_F16, 8: gguf.LlamaFileType.MOSTLY_Q8_0}


def export(job: JobDir) -> Outcome:
    parameters = asked(job, "gguf").parameters
    bits = parameters.get("bits") or 16
    source = load(job, parameters["trained_by"])
    check(source.model, bits)
    words = words_of(source.tokenizer, source.model.config.vocab_size)
    most = longest(source.tokenizer, source.model, parameters.get("max_length"))
    rows = columns(held_out(job), parameters["trained_by"], source.tokenizer, most, ROWS)
    before = Likelihoods.of(logits_of(source.model), rows)
    job.settings.update({"bits": bits, "max_length": most})
    if words.note:
        job.notes["tokenizer_note"] = f"llama.cpp {words.note}; hand it token ids, or some texts become others"

    job.report("phase", message="saving", step=3, total_steps=4)
    file = job.fresh_out() / FILE
    write(file, source, words, bits)
    job.report("phase", message="measuring", step=4, total_steps=4)
    read_into(source.model, file)
    metrics = told_size(job, source.dtype, source.size, weight_bytes(job.out_model, ".gguf"))
    metrics |= judged(before.drift(Likelihoods.of(logits_of(source.model), rows)), GGUF[bits])
    return Outcome("succeeded", metrics, {"kind": "package", "path": "out/model"})


def check(model: PreTrainedModel, bits: int) -> None:
    """Raises BadInput for what a GGUF file of ours would not say or hold as it is."""
    config = model.config
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BadInput(f"The base is a {config.model_type}, and GGUF is written of {known}; take merged or onnx.")
    rope = rope_of(config)
    if rope.get("rope_type", "default") != "default":
        raise BadInput(
            f"The base stretches its positions ({rope['rope_type']}), which is not written yet; take merged."
        )
    if getattr(config, "use_sliding_window", False):
        raise BadInput("The base attends in a sliding window, which is not written yet; take merged.")
    if bits == 8 and (
        odd := {w.shape[-1] for w in model.state_dict().values() if w.dim() == 2 and w.shape[-1] % BLOCK}
    ):
        raise BadInput(f"Q8_0 takes rows of a multiple of {BLOCK} numbers, and a layer has {min(odd)}; take bits 16.")


def rope_of(config: PreTrainedConfig) -> dict[str, Any]:
    """What transformers says of rotary positions (Su et al. 2021, arXiv:2104.09864)."""
    return dict(getattr(config, "rope_parameters", None) or {})


def write(file: Path, source: Source, words: Words, bits: int) -> None:
    """The whole file."""
    config, architecture = source.model.config, ARCHITECTURES[source.model.config.model_type]
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    _write_shape(writer, config, bits)
    _write_words(writer, source.tokenizer, words)
    for name, weight in named(source.model, architecture):
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
        else:
            packed = gguf.quants.quantize(weight, TYPES[bits])
            writer.add_tensor(name, packed, raw_dtype=TYPES[bits])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: gguf.GGUFWriter, config: PreTrainedConfig, bits: int) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_file_type(FILE_TYPES[bits])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(rope_of(config).get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_words(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, words: Words) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.split or "default")
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if number is not None:
            add(number)
    begun = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(bool(begun) and begun[0] == tokenizer.bos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(spoken(tokenizer.chat_template))


def named(model: PreTrainedModel, architecture: gguf.MODEL_ARCH) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """gguf's name of each weight, with the weight as llama.cpp wants it. A head that is the embedding is left out."""
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise BadInput(f"GGUF has no name for the weight {name} of a {model.config.model_type}; take merged.")
        yield found, turned(model.config, name, weight.numpy(), back=False)


def turned(config: PreTrainedConfig, name: str, weight: NDArray[Any], *, back: bool) -> NDArray[Any]:
    """Queries and keys of Llama with the numbers that rotate together side by side, as llama.cpp has them, where
    transformers has them half a head apart; `back` is the other way.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2], 0)
    if config.model_type != "llama" or not heads:
        return weight
    half = weight.shape[0] // heads // 2
    parted = weight.reshape(heads, *((half, 2) if back else (2, half)), *weight.shape[1:])
    return np.ascontiguousarray(parted.swapaxes(1, 2).reshape(weight.shape))


def read_into(model: PreTrainedModel, file: Path) -> None:
    """Puts the weights of the file in place of the model's. Raises RecipeError where one is missing or too many."""
    architecture = ARCHITECTURES[model.config.model_type]
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name == "lm_head.weight" and model.config.tie_word_embeddings:
                continue
            tensor = stored.pop(names.get_name(name, try_suffixes=(".weight", ".bias")), None)
            if tensor is None:
                raise RecipeError(f"The GGUF file lacks the weight {name}.")
            found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            weight.copy_(torch.from_numpy(turned(model.config, name, found.reshape(weight.shape), back=True)))
    if stored:
        raise RecipeError(f"The GGUF file holds weights that the model does not have, {min(stored)} among them.")


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), export))
