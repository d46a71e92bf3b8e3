"""What torch's tensors take, counted as they are made and dropped; it needs torch, and is called once that is there."""

import os
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # as the recipes that take losses from there


def kept_numbers(config: Any, tuner: dict[str, Any], rows: int, length: int) -> float:
    """Numbers of 4 bytes that a model of the config keeps for the backward pass, its weights left out."""
    import torch
    from transformers import AutoModelForCausalLM

    from services.trainer.recipes.data import packing
    from services.trainer.recipes.models.tuning import adapter_config, get_peft_model

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    packing.keep_apart(model)
    adapter = adapter_config(tuner)
    trained = model if adapter is None else get_peft_model(model, adapter)
    trained.train()
    weights = {weight.untyped_storage().data_ptr() for weight in trained.parameters()}
    found: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    given = packing.joined(torch.randint(0, config.vocab_size, (rows, length)).tolist(), torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(**given, use_cache=False)
    return sum(storage.nbytes() for storage in found.values()) / 4


def most_copies(loss: str) -> tuple[float, float]:
    """The most that is held at once while a loss is computed, and while its gradient is made, in copies of logits."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.weak import WeakIdKeyDictionary

    class Living(TorchDispatchMode):
        """Adds up storages from when they are first seen to when they are dropped."""

        def __init__(self, *known: torch.Tensor) -> None:
            super().__init__()
            self.most = 0
            self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
            self._there: WeakIdKeyDictionary = WeakIdKeyDictionary()

        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = call(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(made):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self._known:
                    self._there[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
            self.most = max(self.most, sum({id(key): size for key, size in self._there.items()}.values()))
            return made

    torch.manual_seed(0)
    rows, length, width, vocabulary = 2, 32, 8, 30_000
    hidden = torch.randn(rows, length, width, requires_grad=True)
    heads = torch.randn(vocabulary, width), torch.randn(vocabulary, width)
    labels = torch.randint(0, vocabulary, (rows, length))
    with Living(hidden, *heads, labels) as living:
        value = _LOSSES[loss](hidden, *heads, labels)
        forward, living.most = living.most, 0
        value.backward()
    unit = rows * length * vocabulary * 4
    return forward / unit, living.most / unit


def _own(hidden: Any, head: Any, _: Any, labels: Any) -> Any:
    from transformers.loss.loss_utils import ForCausalLMLoss

    return ForCausalLMLoss(hidden @ head.t(), labels, len(head))


def _tiles(hidden: Any, head: Any, _: Any, labels: Any) -> Any:
    from trl.kernels import ChunkedLogProbFunction

    told = hidden.flatten(0, 1), head, None, labels.flatten(), 1.0, len(head), None, 1.0, ("log_probs", "entropy")
    return ChunkedLogProbFunction.apply(*told)[0].sum()


def _divergence(hidden: Any, head: Any, other: Any, labels: Any) -> Any:
    from trl.experimental.gkd import GKDTrainer

    given, taught = hidden @ head.t(), hidden.detach() @ other.t()
    return GKDTrainer.generalized_jsd_loss(given[:, :-1], taught[:, :-1], labels=labels[:, 1:])


def _pairs(hidden: Any, head: Any, _: Any, labels: Any) -> Any:
    """As TRL's ORPO: the first half is chosen."""
    from torch.nn.functional import cross_entropy
    from trl.experimental.orpo import ORPOTrainer

    logits, half = hidden @ head.t(), len(labels) // 2
    chosen = logits[:half, :-1].contiguous().flatten(0, 1)
    likelihood = cross_entropy(chosen, labels[:half, 1:].flatten())
    del chosen
    found = ORPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    return found[:half].sum() - found[half:].sum() + likelihood


def _proximal(hidden: Any, head: Any, _: Any, labels: Any) -> Any:
    """As recipes/ppo.py takes the logits of answers, which its forward pass also gives."""
    given = hidden @ head.t()
    scaled = given[:, :-1].float() / 1.0
    return scaled.log_softmax(-1).gather(2, labels[:, 1:, None]).sum()


_LOSSES = {"own": _own, "tiles": _tiles, "divergence": _divergence, "pairs": _pairs, "proximal": _proximal}
