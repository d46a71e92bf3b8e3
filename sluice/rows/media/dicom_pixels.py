"""From the samples that a DICOM file stores to what a viewer shows of them; it reads no file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from pydicom import Dataset

    Pixels = np.ndarray[Any, np.dtype[Any]]

#: Where a multi-frame file keeps what others have at its top (PS3.3 C.7.6.16.2.9 and C.7.6.16.2.10).
_PER_FRAME = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def shown(dataset: Dataset, samples: Pixels, frame: int) -> Pixels:
    """The samples of a frame as uint8, (rows, columns) or (rows, columns, 3).

    Source: PS3.3 C.11.1 and C.11.2; where a file has no window, the range of its values becomes 0 to 255.
    """
    from pydicom.pixels.processing import apply_color_lut

    if samples.ndim == 3:
        return _eight_bits(samples[..., :3], int(dataset.BitsStored))
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colors = apply_color_lut(samples, dataset)[..., :3]
        return _eight_bits(colors, colors.dtype.itemsize * 8)
    return _gray(samples, _settings(dataset, frame))


def png(pixels: Pixels) -> bytes:
    """The pixels as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _eight_bits(colors: Pixels, bits: int) -> Pixels:
    import numpy as np

    return (colors >> max(0, bits - 8)).astype(np.uint8)


def _settings(dataset: Dataset, frame: int) -> Dataset:
    """What of group 0028 holds for this frame, without a window that cannot be applied."""
    settings = dataset.group_dataset(0x0028)
    settings.file_meta = dataset.file_meta
    shared, each = dataset.get("SharedFunctionalGroupsSequence"), dataset.get("PerFrameFunctionalGroupsSequence")
    for groups in ([shared[0]] if shared else []) + ([each[frame]] if each and frame < len(each) else []):
        for name in _PER_FRAME:
            if groups.get(name):
                settings.update(groups[name].value[0])
    width = settings.get("WindowWidth")
    first = width if width is None or isinstance(width, float | int) else next(iter(width), None)
    if first is None or float(first) < 1 or settings.get("WindowCenter") is None:
        for name in ("WindowWidth", "WindowCenter"):
            settings.pop(name, None)
    if settings.get("VOILUTFunction") not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        settings.VOILUTFunction = "LINEAR"
    return settings


def _gray(samples: Pixels, settings: Dataset) -> Pixels:
    """The tones of samples, by a table of all values that occur where there are at most 65536."""
    import numpy as np

    padding = settings.get("PixelPaddingValue")
    inside = samples[samples != padding] if isinstance(padding, int) else samples
    if not inside.size:
        inside = samples
    low, high = inside.min(), inside.max()
    if samples.dtype.kind not in "iu" or int(samples.max()) - int(samples.min()) >= 1 << 16:
        return _tones(samples, low, high, settings)
    least = int(samples.min())
    table = _tones(np.arange(least, int(samples.max()) + 1).astype(samples.dtype), low, high, settings)
    toned: Pixels = table[samples.astype(np.int32) - least if least else samples]
    return toned


def _tones(values: Pixels, low: Any, high: Any, settings: Dataset) -> Pixels:
    """The tone of each value; without a window ``low`` is black and ``high`` is white."""
    import numpy as np
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

    ends = np.array([low, high], dtype=values.dtype)
    values, ends = apply_modality_lut(values, settings), apply_modality_lut(ends, settings)
    if settings.get("VOILUTSequence"):
        bits = int(settings.VOILUTSequence[0].LUTDescriptor[2])
        values, ends = apply_voi_lut(np.rint(values).astype(np.int32), settings), np.array([0, (1 << bits) - 1])
    elif "WindowWidth" in settings:
        values, ends = apply_windowing(values, settings), apply_windowing(np.array([-1e15, 1e15]), settings)
    span = float(ends[1]) - float(ends[0])
    tones = np.zeros(values.shape) if not span else (values.astype(np.float64) - float(ends[0])) / span
    if settings.PhotometricInterpretation == "MONOCHROME1":
        tones = 1 - tones
    shades: Pixels = np.rint(np.nan_to_num(tones).clip(0, 1) * 255).astype(np.uint8)
    return shades
