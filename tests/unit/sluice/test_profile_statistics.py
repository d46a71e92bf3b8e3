"""Statistics of rows of every kind against plain Python over the same rows."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from sluice.rows.profile import Statistics, TokenizerError, find_duplicates, preview, statistics

MESSAGE = pa.struct({"role": pa.string(), "content": pa.string()})
MESSAGES = pa.list_(MESSAGE)


def talk(*texts: str, system: str = "") -> list[dict[str, str]]:
    said = [{"role": "system", "content": system}] if system else []
    return [*said, *({"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts))]


TALKS = pa.table(
    {
        "messages": pa.array(
            [
                talk("我的卡丢了，怎么办？", "请马上挂失。", system="你是银行客服。"),
                talk("I lost my card in Leeds", "Please block it in the app.", "And then?", "A new one is sent."),
                talk("Hello", ""),
                talk("Where is the next branch?", "Please block it in the app."),
            ],
            MESSAGES,
        ),
        "split": pa.array(["train", "train", "validation", "test"]).dictionary_encode(),
        "id": ["a", "b", "c", "d"],
        "tags": [["card"], [], None, ["x" * 99]],
    }
)


def described(table: pa.Table, rows: int = 1000, *, language_sample: int = 0, **options: Any) -> Statistics:
    return statistics(table.to_batches(max_chunksize=rows), language_sample=language_sample, **options)


def test_conversations():
    found = described(TALKS)
    texts = [[message["content"] for message in row] for row in TALKS["messages"].to_pylist()]
    sizes = [sum(map(len, row)) for row in texts]
    assert found.rows == 4
    assert found.text_bytes == sum(len(text.encode()) for row in texts for text in row)
    assert {name: part.rows for name, part in found.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert found.splits["validation"].text_bytes == 5
    assert found.characters
    assert (found.characters.min, found.characters.max, found.characters.total) == (min(sizes), max(sizes), sum(sizes))
    assert set(found.fields) == {"messages"}
    field = found.fields["messages"]
    assert field.characters
    assert field.items
    assert (field.characters.count, field.empty) == (11, 1)
    assert (field.items.min, field.items.p50, field.items.max) == (2, 2, 4)
    assert list(found.roles.items()) == [("assistant", 5), ("user", 5), ("system", 1)]
    assert found.answers
    assert (found.answers.count, found.answers.empty, found.answers.most_frequent, found.answers.distinct) == (
        4,
        1,
        1,
        4,
    )
    assert found.labels is found.images is found.tokens is None


def test_what_is_said_about_rows_is_not_what_they_say():
    about = {"group": ["patient 7"] * 4, "key": pa.array([bytes(16)] * 4, pa.binary(16))}
    told = TALKS.append_column("group", [about["group"]]).append_column("key", [about["key"]])
    assert described(told) == described(TALKS.drop_columns(["id", "tags"]))
    assert find_duplicates([pa.table({"text": ["a"] * 4, "group": ["p", "q", "r", "s"]})]).exact == 3


def test_the_cut_into_batches_does_not_show():
    table = pa.concat_tables([TALKS] * 50)
    assert described(table, 7) == described(table, 90) == described(table.combine_chunks(), 10_000)


def test_an_answer_that_repeats_itself():
    rows = [talk(f"question {number}", "I cannot help." if number % 4 else f"answer {number}") for number in range(100)]
    found = described(pa.table({"messages": pa.array(rows, MESSAGES)})).answers
    assert found
    assert (found.count, found.most_frequent, found.distinct) == (100, 75, 26)


def test_more_answers_and_labels_than_are_counted():
    names = [f"name {number}" for number in range(10_500)]
    table = pa.table({"prompt": names, "completion": names, "label": names, "split": ["train"] * len(names)})
    found = described(table, 20_000)
    assert found.answers
    assert (found.answers.count, found.answers.most_frequent, found.answers.distinct, found.answers.error) == (
        10_500,
        1,
        None,
        1,
    )
    assert found.labels
    assert (found.labels.distinct, found.labels.top, found.labels.rest) == (None, [], 10_500)


def test_preference_pairs_judged_answers_and_retrieval():
    pairs = pa.table(
        {
            "prompt": pa.array([talk("why?")], MESSAGES),
            "chosen": pa.array([[{"role": "assistant", "content": "because"}]], MESSAGES),
            "rejected": pa.array([[{"role": "assistant", "content": "no"}]], MESSAGES),
            "split": ["train"],
        }
    )
    found = described(pairs)
    assert {name: each.characters.max for name, each in found.fields.items() if each.characters} == {
        "prompt": 4,
        "chosen": 7,
        "rejected": 2,
    }
    assert found.answers
    assert found.answers.count == 1
    judged = pa.table({"prompt": pairs["prompt"], "completion": pairs["chosen"], "label": [True], "split": ["train"]})
    balance = described(judged).labels
    assert balance
    assert [(each.value, each.rows) for each in balance.top] == [("true", 1)]
    retrieval = pa.table({"query": ["q"], "positive": [["p"]], "negatives": [["n", "nn", None]], "split": ["train"]})
    negatives = described(retrieval).fields["negatives"]
    assert negatives.items
    assert (negatives.items.max, described(retrieval).fields["query"].items) == (2, None)


def test_label_balance():
    several = pa.table({"text": ["a", "b", "c"], "label": [["x", "y"], ["x"], None], "split": ["train"] * 3})
    found = described(several).labels
    assert found
    assert [(each.value, each.rows) for each in found.top] == [("x", 2), ("y", 1)]
    names = [f"label {number % 150:03}" for number in range(300)] + ["label 007", *["L" * 500] * 2]
    many = described(pa.table({"text": names, "label": names, "split": ["train"] * 303})).labels
    assert many
    assert (many.total, many.distinct, len(many.top), many.rest) == (303, 151, 100, 303 - 201)
    assert [each.value for each in many.top[:2]] == ["label 007", "L" * 64]


def test_images_and_their_sizes():
    table = pa.table(
        {
            "messages": pa.array([talk("what is it?", "a chest"), talk("and this?", "a hand")], MESSAGES),
            "images": [["sha256:1", "sha256:2"], []],
            "image_widths": [[512, 1024], []],
            "image_heights": [[512, 768], []],
            "split": ["train", "train"],
        }
    )
    found = described(table)
    assert set(found.fields) == {"messages"}
    assert found.images
    assert found.images.assets
    assert (found.images.assets.min, found.images.assets.max) == (0, 2)
    assert found.images.width
    assert found.images.pixels
    assert (found.images.width.count, found.images.width.max, found.images.pixels.min) == (2, 1024, 512 * 512)
    assert found.images.pixels.max == 1024 * 768
    gaps = pa.table({"images": [["1"], ["2"], ["3"]], "width": [None, 20, 30], "height": [10, None, 40]})
    pixels = described(gaps).images
    assert pixels
    assert pixels.pixels
    assert (pixels.pixels.count, pixels.pixels.max) == (1, 1200)


def test_languages_of_a_sample():
    chinese = "患者今日上午出现咳嗽和发热，建议做胸部检查。"
    english = "The patient has had a cough and a fever since this morning; a chest examination is advised."
    texts = [chinese] * 1500 + [english] * 450 + ["37.5 / 120"] * 50
    table = pa.table({"text": texts, "split": ["train"] * 2000})
    found = described(table, language_sample=1000, seed=2).languages
    assert found
    assert found.sampled == 1000
    shares = {each.code: each for each in found.shares}
    assert list(shares) == ["zh", "en", "und"]
    assert shares["zh"].low < 0.75 < shares["zh"].high
    assert shares["en"].low < 0.225 < shares["en"].high
    assert described(table).languages is None


def test_tokens(tmp_path: Path):
    tokenizer = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = pa.table({"text": ["one two three", "one", ""], "split": ["train"] * 3})
    found = described(table, tokenizer=tmp_path / "tokenizer.json").tokens
    assert found
    assert (found.count, found.total, found.max) == (3, 4, 3)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"`tokenizer\.json` cannot be read as a tokenizer; give a"):
        described(table, tokenizer=tmp_path / "tokenizer.json")


def test_nothing_at_all():
    for table in (TALKS.slice(0, 0), pa.table({"text": pa.array([None, None], pa.string())}), pa.table({"n": [1]})):
        found = described(table)
        assert found.rows == table.num_rows
        assert found.text_bytes == 0
        assert found.answers is found.labels is None
    assert statistics([]).rows == 0


TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.none()
COLUMNS = st.sampled_from(
    [
        (pa.string(), TEXT),
        (pa.large_string(), TEXT),
        (pa.string_view(), TEXT),
        (pa.dictionary(pa.int32(), pa.string()), TEXT),
        (pa.list_(pa.string()), st.lists(TEXT, max_size=3) | st.none()),
        (pa.large_list(pa.large_string()), st.lists(TEXT, max_size=3) | st.none()),
        (pa.list_(pa.string(), 2), st.lists(TEXT, min_size=2, max_size=2)),
        (
            MESSAGES,
            st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}) | st.none(), max_size=3) | st.none(),
        ),
        (pa.int64(), st.integers(0, 9) | st.none()),
        (pa.bool_(), st.booleans() | st.none()),
        (pa.null(), st.none()),
        (MESSAGE, st.fixed_dictionaries({"role": TEXT, "content": TEXT}) | st.none()),
    ]
)
NAMES = ("text", "messages", "chosen", "label", "images", "image_widths", "image_heights", "split", "id", "other")


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_columns_of_any_type_under_any_name(data: st.DataObject):
    rows = data.draw(st.integers(0, 5))
    columns = {}
    for name in data.draw(st.sets(st.sampled_from(NAMES), min_size=1)):
        kind, values = (pa.string(), TEXT) if name == "split" else data.draw(COLUMNS)
        columns[name] = pa.array(data.draw(st.lists(values, min_size=rows, max_size=rows)), kind)
    table = pa.table(columns)
    assert described(table, 2).rows == described(table, 9).rows == find_duplicates(table.to_batches(2)).rows == rows
    assert len(preview(table)) == rows


def test_it_is_plain_data():
    found = described(TALKS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Statistics) == found


def test_a_preview_is_cut():
    shown = preview(TALKS, rows=2, characters=7)
    assert shown[0] == "system: 你是银行客服。\nuser: 我的卡丢了，怎…\nassistant: 请马上挂失。"
    assert len(shown) == 2
    asked = pa.table({"query": ["q"], "positive": [["p", "p2"]], "images": [["sha256:1"]]})
    assert preview(asked) == ["query: q\npositive: p\npositive: p2\nimages: sha256:1"]
