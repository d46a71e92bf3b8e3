"""Sounds as a recipe opens them; no model is there."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from services.trainer.recipes.data.sounds import brief_copy, format_of, open_sound, samples_of
from services.trainer.recipes.job.failures import BadInput

RATE = 16_000


def file_of(folder: Path, rate: int, channels: int, form: str, seconds: float = 0.3) -> Path:
    tone = np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate) / 2
    made = folder / ("a" * 64)
    with made.open("wb") as sink:
        soundfile.write(sink, np.stack([tone, *[0 * tone] * (channels - 1)], axis=1), rate, format=form)
    return made


@pytest.mark.parametrize(
    ("rate", "channels", "form", "told"),
    [(RATE, 1, "WAV", "wav"), (22_050, 2, "FLAC", "flac"), (8_000, 1, "OGG", "ogg"), (44_100, 1, "MP3", "mp3")],
)
def test_a_sound_is_one_channel_at_the_rate_of_the_model(
    tmp_path: Path, rate: int, channels: int, form: str, told: str
) -> None:
    file = file_of(tmp_path, rate, channels, form)
    found = open_sound(file, RATE)
    assert found.dtype == np.float32 and found.shape == (samples_of(file, RATE),)
    assert abs(len(found) - 0.3 * RATE) < 0.1 * RATE, "an encoder may add a little"
    assert np.array_equal(open_sound(file.read_bytes(), RATE), found) and format_of(file.read_bytes()) == told
    middle = found[1_000:4_000]
    assert np.abs(np.fft.rfft(middle)).argmax() * RATE / len(middle) == pytest.approx(440, abs=8)
    assert middle.max() == pytest.approx(0.5 / channels, abs=0.05), "channels are averaged"


def test_a_large_one_is_cut_for_a_file_that_is_to_stay_small(tmp_path: Path) -> None:
    file = file_of(tmp_path, RATE, 2, "WAV", seconds=7)
    assert soundfile.info(io.BytesIO(brief_copy(file))).duration == 5
    small = file_of(tmp_path, RATE, 1, "WAV")
    assert brief_copy(small) == small.read_bytes()


def test_what_cannot_be_decoded_is_said(tmp_path: Path) -> None:
    broken = tmp_path / ("b" * 64)
    broken.write_bytes(b"RIFF no more")
    for act in (samples_of, open_sound):
        with pytest.raises(BadInput, match="The sound bbbbbbbbbbbb… below in/assets cannot be decoded; upload it anew"):
            act(broken, RATE)


@pytest.mark.parametrize(
    ("samples", "rate"), [([0.5], 2_000_000_000), ([0.5], 999), ([], RATE), ([0.5, np.nan], RATE), ([np.inf], RATE)]
)
def test_a_head_that_would_take_all_memory_and_what_is_no_sound_are_refused(
    tmp_path: Path, samples: list[float], rate: int
) -> None:
    odd = tmp_path / ("c" * 64)
    with odd.open("wb") as sink:
        soundfile.write(sink, np.array(samples), rate, "FLOAT", format="WAV")
    with pytest.raises(BadInput, match="The sound cccccccccccc… below in/assets is empty, holds NaN or infinity, or"):
        open_sound(odd, RATE)
    if len(samples) < 2 and np.isfinite(samples).all():  # what a head tells
        with pytest.raises(BadInput, match="outside of 1 to 768 kHz; export it again"):
            samples_of(odd, RATE)
