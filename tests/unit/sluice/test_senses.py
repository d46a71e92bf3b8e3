"""What a model takes beside text, by the config.json of models of the field."""

from typing import Any

import pytest

from sluice.senses import takes, takes_adapters, takes_adapters_of_towers, too_many

SEES: dict[str, Any] = {"vision_config": {}}


@pytest.mark.parametrize(
    ("config", "senses"),
    [
        ({"hidden_size": 64}, set()),
        ({**SEES, "image_token_id": 5}, {"image"}),  # SmolVLM, InternVL: a video is its frames
        ({**SEES, "image_token_id": 5, "video_token_id": 6}, {"image", "video"}),  # Qwen-VL
        ({**SEES, "video_token_index": 6}, {"image", "video"}),  # LLaVA-OneVision
        ({**SEES, "video_token_id": None}, {"image"}),
        ({"video_token_id": 6}, set()),
        ({"audio_config": {}, "audio_token_index": 7}, {"audio"}),  # Qwen2-Audio
        ({"encoder_config": {}, "audio_token_index": 7}, {"audio"}),  # Granite Speech
        ({**SEES, "audio_config": {}, "audio_token_id": 7}, {"image", "audio"}),  # Gemma 3n
        ({"thinker_config": {**SEES, "video_token_index": 6, "audio_config": {}}}, {"image", "video", "audio"}),
    ],
)
def test_what_a_model_takes_stands_in_its_config(config: dict[str, Any], senses: set[str]) -> None:
    assert takes(config) == senses


def test_engines_serve_adapters_on_most() -> None:
    assert takes_adapters({"architectures": ["Qwen3ASRForConditionalGeneration"]}) and takes_adapters({})
    assert not takes_adapters({"architectures": ["Qwen2AudioForConditionalGeneration"]})


def test_adapters_of_what_sees_are_served_where_nothing_is_heard() -> None:
    assert takes_adapters_of_towers(SEES) and not takes_adapters_of_towers({**SEES, "audio_config": {}})
    assert not takes_adapters_of_towers({**SEES, "architectures": ["Gemma3nForConditionalGeneration"]})


def test_an_engine_takes_so_many_in_one_request() -> None:
    assert not too_many(16, 1, 1)
    assert too_many(17) and too_many(videos=2) and too_many(sounds=2)
