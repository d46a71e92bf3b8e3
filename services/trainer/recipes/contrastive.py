"""InfoNCE of sentence-transformers in a trainer that counts tokens and can be resumed; knows no rows.

Imported after `offline.prepare_process`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.util import cos_sim
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer

from services.trainer.recipes.encoders import padded

TEMPERATURE = 0.05


def collate(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`features` of the queries, of what fits them and, where there are some, of all negatives; `false`, (queries,
    documents), where another document fits the query too. The rest lets the trainer count tokens.
    """
    groups = [[row["texts"][place] for row in rows] for place in (0, 1)]
    groups.append([text for row in rows for text in row["texts"][2:]])
    features = [padded(tokenizer, group) for group in groups if group]
    documents = [row["documents"][0] for row in rows] + [each for row in rows for each in row["documents"][1:]]
    false = [
        [place != own and document in row["fits"] for place, document in enumerate(documents)]
        for own, row in enumerate(rows)
    ]
    flat = {name: torch.cat([each[name].flatten() for each in features]) for name in ("input_ids", "attention_mask")}
    return {"features": features, "false": torch.tensor(false), **flat}


class Similarity:
    """Cosines of queries and documents, but for those that are `false` negatives, which count for nothing.

    A loss asks for those of some queries after the other, always all of a batch.
    """

    def __init__(self) -> None:
        self.false = torch.empty(0)
        self._asked = 0

    def start(self, false: Tensor) -> None:
        """(queries, documents) of the next batch."""
        self.false, self._asked = false, 0

    def __call__(self, queries: Tensor, documents: Tensor) -> Tensor:
        begin = self._asked
        self._asked = (begin + len(queries)) % len(self.false)
        return cos_sim(queries, documents).masked_fill(self.false[begin : begin + len(queries)], -torch.inf)


class Contrastive(Trainer):
    """Trains the weights of an encoder on batches of `collate`."""

    def __init__(
        self, encoder: SentenceTransformer, parameters: dict[str, Any], sizes: Sequence[int], **given: Any
    ) -> None:
        super().__init__(model=encoder[0].model, **given)
        self.can_return_loss = True
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
        self.similarity.start(inputs["false"])
        loss = self.loss(inputs["features"], None)
        return (loss, {}) if return_outputs else loss
