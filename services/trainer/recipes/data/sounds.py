"""Sounds as a serving engine decodes them: one channel, at the rate of the model; knows no model."""

import io
from math import ceil, gcd
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.offline import bring_back
from sluice.senses import ODD_SOUND, is_rate

#: What goes into a file that is to stay small: so many bytes, or so many seconds of what is larger.
SMALL_BYTES = 1 << 18
SMALL_SECONDS = 5
#: The names of formats in OpenAI's `input_audio`, by those of libsndfile.
FORMATS = {"WAV": "wav", "WAVEX": "wav", "FLAC": "flac", "OGG": "ogg", "MP3": "mp3"}


def samples_of(file: Path, rate: int) -> int:
    """How many samples a sound has at `rate` Hz. Raises BadInput."""
    try:
        told = soundfile.info(file)
        # The head of an MP3 only estimates.
        count = len(soundfile.read(file)[0]) if told.format == "MP3" else told.frames
    except soundfile.LibsndfileError as error:
        raise _broken(file) from error
    if not count or not is_rate(told.samplerate):
        raise _odd(file)
    return ceil(count * rate / told.samplerate)


def open_sound(source: Path | bytes, rate: int) -> NDArray[np.float32]:
    """The samples at `rate` Hz, between -1 and 1; channels are averaged. Raises BadInput."""
    samples, own = _read(source)
    if own == rate:
        return samples
    bring_back("scipy")
    from scipy.signal import resample_poly  # here alone: it takes a second to import

    common = gcd(own, rate)
    return np.asarray(resample_poly(samples, rate // common, own // common), np.float32)


def brief_copy(file: Path) -> bytes:
    """The file, or, where that is large, its first five seconds as WAV of one channel. Raises BadInput."""
    if file.stat().st_size <= SMALL_BYTES:
        return file.read_bytes()
    (samples, rate), made = _read(file), io.BytesIO()
    soundfile.write(made, samples[: SMALL_SECONDS * rate], rate, "PCM_16", format="WAV")
    return made.getvalue()


def format_of(content: bytes) -> str:
    """What OpenAI calls the format of a sound."""
    return FORMATS[soundfile.info(io.BytesIO(content)).format]


def _read(source: Path | bytes) -> tuple[NDArray[np.float32], int]:
    """One channel at its own rate."""
    try:
        samples, rate = soundfile.read(io.BytesIO(source) if isinstance(source, bytes) else source, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise _broken(source) from error
    if not len(samples) or not is_rate(rate) or not np.isfinite(samples).all():
        raise _odd(source)
    return (samples if samples.ndim == 1 else samples.T.mean(0)), int(rate)


def _odd(source: Path | bytes) -> BadInput:
    return BadInput(f"The sound{_name(source)} below in/assets {ODD_SOUND}")


def _name(source: Path | bytes) -> str:
    return f" {source.name[:12]}…" if isinstance(source, Path) else ""


def _broken(source: Path | bytes) -> BadInput:
    return BadInput(f"The sound{_name(source)} below in/assets cannot be decoded; upload it anew as WAV or FLAC.")
