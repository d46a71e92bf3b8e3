"""Lets torchvision be imported where it was built for CUDA and torch was not; knows no image.

Its wheel registers shapes of operators that its compiled part declares, and that does not load on a machine without
CUDA ("operator torchvision::nms does not exist"). Image processors need none of these operators.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing() -> torch.library.Library | None:
    """Declares the operators unless torchvision does so itself; they are there while the caller keeps the result."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return None
    try:
        for compiled in Path(package.origin).parent.glob("_C*.so"):
            torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
            return None
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


OPERATORS = declare_missing()  # kept: they go with it
