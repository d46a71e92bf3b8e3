"""What a model takes beside text, as its config.json tells; weights, processors and engines are not known here.

Recipe, engine and evaluator ask here, so that a video is put to an engine as it was put to the model in training.
"""

from collections.abc import Mapping
from typing import Any, Literal

Sense = Literal["image", "video", "audio"]
#: Where transformers keeps what belongs to a sense; the first of image and sound are whole models.
_NAMED: dict[Sense, tuple[str, ...]] = {
    "image": ("vision_config",),
    "video": ("video_token_id", "video_token_index"),
    "audio": ("audio_config", "audio_token_id", "audio_token_index"),
}
#: As many as an engine of ours takes in one request; more would ask for memory before anybody sends one.
MOST: dict[Sense, int] = {"image": 16, "video": 1, "audio": 1}
#: The same in words.
MOST_SAID = ", ".join(f"{sense} {most}" for sense, most in MOST.items())
#: Frames of one video that an engine of ours takes. vLLM 0.32 leaves out those after its limit without a word, so the
#: limit is set, and more are refused before it sees them.
MOST_FRAMES = 64
#: Samples a second of a sound, the least and the most. Bringing one to a model's rate takes memory by its rate and not
#: by its length: a head of a few bytes that says 2 GHz would take all.
RATES = (1_000, 768_000)
#: Architectures that vLLM 0.32 serves without adapters (their classes lack SupportsLoRA), of those that hear.
WITHOUT_ADAPTERS = frozenset({"Qwen2AudioForConditionalGeneration", "Gemma3nForConditionalGeneration"})
#: What is said of a sound that is decoded and no sound.
ODD_SOUND = "is empty, holds NaN or infinity, or has a rate outside of 1 to 768 kHz; export it again."


def takes(config: Mapping[str, Any]) -> frozenset[Sense]:
    """What a model takes by a ``config.json`` of transformers; a video only where the model has an input for one.

    A model without such an input is shown a video as its frames, one image after the other.
    """
    inner = config.get("thinker_config")  # of models that speak too, the part that hears, sees and writes
    told = inner if isinstance(inner, Mapping) else config
    found = {sense for sense, names in _NAMED.items() if any(told.get(name) is not None for name in names)}
    return frozenset(found if "image" in found else found - {"video"})


def too_many(images: int = 0, videos: int = 0, sounds: int = 0) -> bool:
    """Whether no engine of ours can be asked a request with so many."""
    return images > MOST["image"] or videos > MOST["video"] or sounds > MOST["audio"]


def is_rate(rate: float) -> bool:
    """Whether a sound of so many samples a second is taken."""
    return RATES[0] <= rate <= RATES[1]


def takes_adapters(config: Mapping[str, Any]) -> bool:
    """Whether engines serve an adapter on such a model; else it is merged into the weights."""
    return not WITHOUT_ADAPTERS & set(config.get("architectures") or ())


def takes_adapters_of_towers(config: Mapping[str, Any]) -> bool:
    """Whether engines serve an adapter of what sees, or brings that to the language model, on such a model.

    With tower adapters at all, vLLM 0.32 ends at the first sound: it counts tokens of padding in an audio tower at one
    place and not at another. So they are off where a model hears, and such a part would be ignored without a word.
    """
    return takes_adapters(config) and "audio" not in takes(config)
