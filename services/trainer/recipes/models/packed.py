"""Layers whose frozen weights stay in the few bits that a base's files hold, as exports by GPTQ and AWQ do.

A weight is unpacked when its layer computes, and once more for the gradient of what went in; between the two nothing is
kept of it. Knows no task and saves nothing.
"""

from typing import Any

import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.utils import get_direct_state_dict
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel


class PackedLinear(torch.nn.Linear):
    """A linear layer with a packed weight, one of compressed-tensors; adapters take it for any other layer."""

    @property
    def weight(self) -> Tensor:
        """(outputs, inputs), unpacked each time that it is asked for, in the dtype of its scales."""
        scheme = self.quantization_scheme
        # The shape in numbers: read from the tensor it would wait for the device.
        held = {**get_direct_state_dict(self), "weight_shape": torch.Size((self.out_features, self.in_features))}
        with torch.no_grad():
            return BaseCompressor.get_value_from_registry(scheme.format.value).decompress(held, scheme)["weight"]

    def forward(self, given: Tensor) -> Tensor:
        return _Product.apply(given, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return linear(given, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


def keep_packed(model: PreTrainedModel) -> None:
    """Keeps weights packed that compressed-tensors has loaded so and would unpack for good when the model computes."""
    model.hf_quantizer.compressor.remove_decompression_hook(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and hasattr(module, "weight_packed"):
            module.__dict__.pop("forward", None)  # compressed-tensors' own
            module.__class__ = PackedLinear
