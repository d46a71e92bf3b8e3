"""What a classifier with an encoder of images and one of texts makes of their two vectors; it knows no encoder.

Both vectors are brought to one length and put beside each other, then come two layers with tanh between them, as in
the heads of RoBERTa (Liu et al. 2019, arXiv:1907.11692). The model's folder has the encoders, and in `HEAD` the layers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

#: Beside the encoders' own files, where an engine does not look for weights of theirs.
HEAD, WEIGHTS = "classification_head", "model.safetensors"


def read_head(folder: Path) -> "dict[str, Array]":
    """The layers of a model's folder, in float32. Raises OSError, or ValueError where they are no floats."""
    from safetensors import SafetensorError, deserialize

    content = (folder / HEAD / WEIGHTS).read_bytes()
    try:
        return {name: _floats(each) for name, each in deserialize(content)}  # type: ignore[no-untyped-call]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{HEAD}/{WEIGHTS} holds no floats that are read here") from error


def _floats(stored: "Mapping[str, Any]") -> "Array":
    """A tensor as safetensors has it; NumPy has no bfloat16, which is the first half of a float32."""
    import numpy as np

    kind, data = stored["dtype"], stored["data"]
    if kind == "BF16":
        made: Array = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        made = np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind]).astype("<f4")
    return made.reshape(stored["shape"])


def is_whole(head: "Mapping[str, Array]", classes: int, width: int | None) -> bool:
    """Whether the layers fit each other, so many classes, and an image's and a text's vector of so many numbers each,
    where that is known; and are finite."""
    import numpy as np

    dense, out_proj = (head.get(f"{layer}.weight") for layer in ("dense", "out_proj"))
    if dense is None or out_proj is None or dense.ndim != 2:
        return False
    within, both = dense.shape
    wanted = {"dense.bias": (within,), "out_proj.weight": (classes, within), "out_proj.bias": (classes,)}
    fits = all(name in head and head[name].shape == shape for name, shape in wanted.items())
    return fits and both == 2 * (width or both / 2) and all(bool(np.isfinite(each).all()) for each in head.values())


def values(head: "Mapping[str, Array]", seen: Sequence[float], read: Sequence[float]) -> "Array":
    """A value for each class, before any activation, of the vectors of an image and of a text, of whatever length."""
    import numpy as np

    given = [np.asarray(each) for each in (seen, read)]
    even = [each * len(each) ** 0.5 / max(float(np.linalg.norm(each)), 1e-12) for each in given]
    both: Array = np.concatenate(even).astype(np.float32)
    within = np.tanh(head["dense.weight"] @ both + head["dense.bias"])
    made: Array = head["out_proj.weight"] @ within + head["out_proj.bias"]
    return made


def shares(of: "Array", several: bool) -> "Array":
    """Probabilities: of each class by itself, or of one against the others."""
    import numpy as np

    if several:
        made: Array = 1 / (1 + np.exp(-of))
        return made
    powers = np.exp(of - of.max())
    made = powers / powers.sum()
    return made


def words(texts: Iterable[str]) -> str:
    """The one text of several pieces between images."""
    return "".join(texts).strip()
