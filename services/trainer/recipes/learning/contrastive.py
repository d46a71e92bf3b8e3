"""InfoNCE of sentence-transformers in a trainer that counts tokens and can be resumed; knows no rows.

Imported after `offline.prepare_process`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.util import cos_sim
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, Trainer

from services.trainer.recipes.distributed.distribution import gathered
from services.trainer.recipes.distributed.ranks import own_rank, world
from services.trainer.recipes.models.encoders import freeze_pooler, padded

TEMPERATURE = 0.05

T = TypeVar("T")


def collate(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`features` of the queries, of what fits them and, where there are some, of all negatives; `documents`, the number
    of each of the latter two, and `fits`, (queries, most), those of all that fits a query, filled up with -1. The rest
    lets the trainer count tokens.
    """
    groups = [[row["texts"][place] for row in rows] for place in (0, 1)]
    groups.append([text for row in rows for text in row["texts"][2:]])
    features = [padded(tokenizer, group) for group in groups if group]
    documents = [row["documents"][0] for row in rows] + [each for row in rows for each in row["documents"][1:]]
    fits = pad_sequence([torch.tensor(row["fits"]) for row in rows], True, -1)
    flat = {name: torch.cat([each[name].flatten() for each in features]) for name in ("input_ids", "attention_mask")}
    return {"features": features, "documents": torch.tensor(documents), "fits": fits, **flat}


class Similarity:
    """Cosines of queries and documents, but for those that are `false` negatives, which count for nothing.

    The documents are those of the batch and after them those that the other processes have in theirs, where there are
    some: as many negatives as if it were one batch. A loss asks for those of some queries after the other, always all
    of a batch.
    """

    def __init__(self) -> None:
        self.false = torch.empty(0)
        self._asked = 0
        self._counts: list[int] = []

    def start(self, documents: Tensor, fits: Tensor) -> None:
        """The numbers of the next batch's documents, and of what fits its queries; a call of all processes."""
        told = gathered(documents.tolist()) if world() > 1 else [documents.tolist()]
        self._counts = [len(each) for each in told]
        others = [number for each in _without_own(told) for number in each]
        everything = torch.cat([documents, documents.new_tensor(others)])
        self.false = (fits[:, :, None] == everything).any(1).fill_diagonal_(False)  # a query's own one comes first
        self._asked = 0

    def __call__(self, queries: Tensor, documents: Tensor) -> Tensor:
        begin = self._asked
        self._asked = (begin + len(queries)) % len(self.false)
        if world() > 1:
            documents = torch.cat([documents, *self._of_others(documents)])
        return cos_sim(queries, documents).masked_fill(self.false[begin : begin + len(queries)], -torch.inf)

    def _of_others(self, documents: Tensor) -> list[Tensor]:
        """Their vectors, whose gradients go back to them."""
        filled = pad(documents, (0, 0, 0, max(self._counts) - len(documents)))
        told = all_gather(filled)
        return _without_own([each[:count] for each, count in zip(told, self._counts, strict=True)])


def _without_own(told: list[T]) -> list[T]:
    """What the other processes have, of what each has."""
    return told[: own_rank()] + told[own_rank() + 1 :]


class Shared(torch.nn.Module):
    """A model as its engine runs it, which is how gradients come together; sentence-transformers asks for `forward`
    alone, which FSDP would not see, and for the configuration, which DDP does not have.
    """

    def __init__(self, engine: torch.nn.Module, config: Any) -> None:
        super().__init__()
        self.engine, self.config = engine, config

    def forward(self, **given: Any) -> Any:
        return self.engine(**given)


class Contrastive(Trainer):
    """Trains the weights of an encoder on batches of `collate`."""

    def __init__(
        self, encoder: SentenceTransformer, parameters: dict[str, Any], sizes: Sequence[int], **given: Any
    ) -> None:
        freeze_pooler(encoder[0].model)
        super().__init__(model=encoder[0].model, **given)
        self.can_return_loss = True
        self._encoder = encoder
        self.similarity = Similarity()
        how = {"scale": 1 / (parameters.get("temperature") or TEMPERATURE), "similarity_fct": self.similarity}
        if at_once := parameters.get("mini_batch_size"):
            loss = losses.CachedMultipleNegativesRankingLoss(encoder, mini_batch_size=at_once, **how)
        else:
            loss = losses.MultipleNegativesRankingLoss(encoder, **how)
        self.loss = losses.MatryoshkaLoss(encoder, loss, sizes) if sizes else loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.similarity.start(inputs["documents"], inputs["fits"])
        if world() > 1:
            self._encoder[0].model = Shared(model, self.model.config)
        loss = self.loss(inputs["features"], None)
        return (loss, {}) if return_outputs else loss
