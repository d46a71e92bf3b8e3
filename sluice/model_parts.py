"""The parts of models that see or hear, by the names of their modules and weights; what is in them is not known here.

Recipe and gateway ask here, so that what is trained as a tower is known as one where it is served.
"""

from typing import Literal

PartOfModel = Literal["tower", "audio_tower", "projector", "language"]
#: What transformers calls them in its models of LLaVA, Qwen-VL, Idefics, SmolVLM, InternVL, Gemma and Mistral, and in
#: those that hear: of Qwen, GLM, Gemma, Voxtral, Flamingo and Granite Speech.
PROJECTORS = {"merger", "merger_list", "deepstack_merger_list", "multi_modal_projector", "connector", "projector"}
PROJECTORS |= {"embed_audio", "embed_vision", "visual_projection"}
TOWERS = {"visual", "vision_tower", "vision_model", "vision_encoder"}
AUDIO_TOWERS = {"audio_tower", "encoder"}
#: What reads text, whatever it is made of: of CLIP it is an encoder too.
LANGUAGE = {"language_model", "text_model"}


def part_of(name: str) -> PartOfModel:
    """The part of a model that a module or a weight of this name belongs to."""
    rooms = set(name.split("."))
    if rooms & PROJECTORS:
        return "projector"
    if rooms & TOWERS:
        return "tower"
    return "audio_tower" if rooms & AUDIO_TOWERS and not rooms & LANGUAGE else "language"
