"""What the engine's server refuses of sounds, on a loader that reads them by soundfile as vLLM's does."""

import ast
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import soundfile

import services.gateway.engines
from sluice.senses import ODD_SOUND, is_rate

SERVER = Path(services.gateway.engines.__file__).with_name("vllm_server.py")


def wrapped(load: Any) -> Any:
    """The loader as `blame_callers_for_sounds` leaves it; its module imports torch, this function does not."""
    (found,) = (
        each
        for each in ast.parse(SERVER.read_text()).body
        if isinstance(each, ast.FunctionDef) and each.name == "blame_callers_for_sounds"
    )
    loaders = {"soundfile": load}
    vllm = SimpleNamespace(import_module=lambda name: SimpleNamespace(_AUDIO_LOADERS=loaders))
    names: dict[str, Any] = {"importlib": vllm, "numpy": numpy, "is_rate": is_rate, "ODD_SOUND": ODD_SOUND}
    exec(compile(ast.Module([found], []), str(SERVER), "exec"), names)
    names["blame_callers_for_sounds"]()
    return loaders["soundfile"]


def read(content: io.BytesIO, **_: object) -> Any:
    return soundfile.read(content, dtype="float32")


@pytest.mark.parametrize(
    ("samples", "rate", "sound"),
    [
        ([0.5, 0.25], 16_000, True),
        ([0.5], 2_000_000_000, False),
        ([0.5], 500, False),
        ([], 16_000, False),
        ([0.5, numpy.nan], 16_000, False),
        ([-numpy.inf], 16_000, False),
    ],
)
def test_a_sound_that_would_take_all_memory_or_is_none_is_the_callers_fault(
    samples: list[float], rate: int, sound: bool
) -> None:
    made = io.BytesIO()
    soundfile.write(made, numpy.array(samples), rate, "FLOAT", format="WAV")
    made.seek(0)
    if sound:
        assert wrapped(read)(made, sr=None)[1] == rate
        return
    with pytest.raises(ValueError, match="rate outside of 1 to 768 kHz"):
        wrapped(read)(made, sr=None)


def test_what_cannot_be_decoded_is_too() -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        wrapped(read)(io.BytesIO(b"RIFF no more"))
