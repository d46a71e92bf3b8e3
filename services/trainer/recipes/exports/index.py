"""A FAISS index of the vectors of documents: `python -m services.trainer.recipes.exports.index JOBDIR`.

Every text that fits a query, or is known not to, is a document. The package names rows and fields, and holds no text:
who may read rows is another right than who may take a package. Knows no service.
"""

import hashlib
import json
import sys
from pathlib import Path

from services.trainer.recipes.job.failures import BadInput, RecipeError
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process("scipy", "sentence_transformers", "sklearn")  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from services.trainer.recipes.data.rows import Retrieval, read_retrieval
from services.trainer.recipes.embedding import vectors
from services.trainer.recipes.exports.source import asked, check_floats, longest, source_bytes, told_size
from services.trainer.recipes.models.device import device_type
from services.trainer.refusals import enum_word

INDEX, IDS = "index.faiss", "ids.jsonl"
#: How many neighbors an answer has, and of how many queries.
AT, QUERIES = 10, 256
#: Neighbors of a place in the graph, and places looked at when it is built and asked (arXiv:1603.09320, section 4).
HNSW = {"neighbors": 32, "build": 200, "ask": 128}

Vectors = NDArray[np.float32]  # (texts, width)
#: Where a document stands: split, line from 1, field, place in it.
Place = tuple[str, int, str, int]


def export(job: JobDir) -> Outcome:
    parameters = asked(job, "faiss").parameters
    job.report("phase", message="reading", step=1, total_steps=4)
    encoder, dtype = load_encoder(job), check_floats(job.base)
    most = longest(encoder[0].tokenizer, encoder[0].model, parameters.get("max_length"))
    splits = {path.stem: read_retrieval(path) for path in (job.train_rows, job.validation_rows) if path.exists()}
    documents = places(splits)
    asking = splits.get("validation") or splits["train"]
    job.notes["measured_on"] = "validation" if "validation" in splits else "train"

    job.report("phase", message="embedding", step=2, total_steps=4)
    made = vectors(encoder, list(documents), most).numpy()
    queries = vectors(encoder, list(dict.fromkeys(row.query for row in asking))[:QUERIES], most).numpy()
    kind = enum_word(parameters.get("index"), "FAISS_INDEX_") or "flat"
    job.settings.update({"index": kind, "max_length": most, **(HNSW if kind == "hnsw" else {})})

    job.report("phase", message="saving", step=3, total_steps=4)
    out = job.fresh_out()
    faiss.write_index(built(made, kind), str(out / INDEX))
    with (out / IDS).open("w", encoding="utf-8") as file:
        for number, (text, where) in enumerate(documents.items()):
            digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
            found = [dict(zip(("split", "line", "field", "place"), each, strict=True)) for each in where]
            file.write(json.dumps({"id": number, "text": digest, "rows": found}) + "\n")
    encoder.save_pretrained(str(out / "encoder"), create_model_card=False)  # queries need the same vectors

    job.report("phase", message="measuring", step=4, total_steps=4)
    metrics = measured(out, made, queries, len(documents))
    before = source_bytes(job) + made.nbytes
    after = sum(file.stat().st_size for file in (out / INDEX, *(out / "encoder").glob("*.safetensors")))
    return Outcome(
        "succeeded", metrics | told_size(job, dtype, before, after), {"kind": "package", "path": "out/model"}
    )


def load_encoder(job: JobDir) -> SentenceTransformer:
    """The folder of sentence-transformers that the recipe `embedding` left, in float32. Raises BadInput."""
    try:
        return SentenceTransformer(
            str(job.base), device=device_type(), model_kwargs={"dtype": torch.float32}, trust_remote_code=False
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base is not a folder of sentence-transformers that can be loaded.") from error


def places(splits: dict[str, list[Retrieval]]) -> dict[str, list[Place]]:
    """Every document once, in the order of the rows, with all places where it stands."""
    found: dict[str, list[Place]] = {}
    for split, rows in splits.items():
        for line, row in enumerate(rows, start=1):
            for name, texts in (("positive", row.positive), ("negatives", row.negatives)):
                for place, text in enumerate(texts):
                    found.setdefault(text, []).append((split, line, name, place))
    return found


def built(made: Vectors, kind: str) -> faiss.Index:
    """An index of cosines, which are inner products of vectors of length 1; the numbers of its vectors are the ids."""
    width = made.shape[1]
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, HNSW["neighbors"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = HNSW["build"], HNSW["ask"]
    else:
        index = faiss.IndexFlatIP(width)
    index.add(unit(made))
    return index


def unit(made: Vectors) -> Vectors:
    """The same directions at length 1; a vector of zeros stays."""
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)


def measured(out: Path, made: Vectors, queries: Vectors, documents: int) -> dict[str, float]:
    """`recall_at_10` of the index as it was written, against comparing with every document; of fewer, at as many.

    Raises RecipeError where the files do not hold what they should: a vector for each document, each with its row.
    """
    index = faiss.read_index(str(out / INDEX))
    ids = [json.loads(line) for line in (out / IDS).read_text("utf-8").splitlines()]
    whole = index.ntotal == len(ids) == documents and all(
        each["rows"] and each["id"] == at for at, each in enumerate(ids)
    )
    nearest = index.search(unit(made), 1)[0][:, 0]
    if not whole or not np.allclose(nearest[np.linalg.norm(made, axis=1) > 0], 1.0, atol=1e-3):
        raise RecipeError("The index does not find the documents it was made of; export it with the index flat.")
    at = min(AT, documents)
    exact = np.sort(unit(queries) @ unit(made).T, axis=1)[:, -at]  # the least cosine of an exact answer
    found, _ = index.search(unit(queries), at)
    recall = float((found >= exact[:, None] - 1e-6).mean())
    return {f"recall_at_{at}": recall, "documents": float(documents), "queries": float(len(queries))}


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), export))
