"""Rows that repeat others: what counts as the same, what as similar, what leaks, and what is said above the limits."""

import random
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from sluice.rows.profile import Duplicates, find_duplicates
from sluice.rows.profile.contents import content_keys
from sluice.rows.profile.minhash import banding, signatures, similarity
from sluice.rows.profile.shingles import shingles

MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
HAN = "".join(map(chr, range(0x4E00, 0x5200)))
LATIN = "abcdefghijklmnopqrstuvwxyz"


def found_in(table: pa.Table, rows: int = 1000, **options: Any) -> Duplicates:
    return find_duplicates(table.to_batches(max_chunksize=rows), **options)


def texts(values: list[str], splits: list[str] | None = None, **columns: Any) -> pa.Table:
    return pa.table({"text": values, "split": splits or ["train"] * len(values), **columns})


def jaccard(one: str, other: str, size: int = 5) -> float:
    grams = [{text[at : at + size] for at in range(len(text) - size + 1)} for text in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def written(rng: random.Random, letters: str, length: int) -> str:
    return "".join(rng.choices(letters, k=length))


def edited(rng: random.Random, text: str, letters: str, edits: int) -> str:
    """The text with so many letters replaced, far from each other: each changes 5 shingles."""
    for at in range(edits):
        place = at * len(text) // edits + 6
        text = text[:place] + rng.choice(letters.replace(text[place], "")) + text[place + 1 :]
    return text


def test_equal_rows_are_told_by_what_they_say():
    table = texts(["a", "b", "a", "a "], id=["1", "2", "3", "4"], tags=[["x"], ["y"], ["z"], []])
    found = found_in(table)
    assert (found.rows, found.exact, found.near) == (4, 1, 1)
    assert [(each.row, each.split, each.twin, each.exact) for each in found.exact_first] == [(3, "train", 1, True)]
    assert [(each.row, each.twin, each.exact) for each in found.near_first] == [
        (4, 1, False)
    ]  # white space does not count there


def test_content_keys_are_stable_and_keep_lists_apart():
    values = [["a", "b"], ["a\nb"], ["ab"], ["b", "a"], [], None, ["a", "b"]]
    keys = content_keys(pl.DataFrame({"positive": pl.Series(values, dtype=pl.List(pl.String))}))
    assert keys.n_unique() == 5
    assert keys[0] == keys[6]
    said = [[{"role": role, "content": "hi"}] for role in ("user", "assistant")]
    assert content_keys(pl.DataFrame({"messages": said})).n_unique() == 2
    assert f"{content_keys(pl.DataFrame({'text': ['诊断']}))[0]:032x}" == "7c80babace8535201e34b7d01d4c298c"


@pytest.mark.parametrize("letters", [LATIN, HAN])
def test_similarity_is_that_of_the_shingles(letters):
    rng = random.Random(3)
    base = [written(rng, letters, 400) for _ in range(60)]
    other = [edited(rng, text, letters, edits) for text, edits in zip(base, range(60), strict=True)]
    salts = np.zeros(60, np.uint64)
    signed = [signatures(pl.Series(each), salts, threshold=0.8, shingle=5, seed=1).low for each in (base, other)]
    places = np.arange(60)
    estimated = similarity(np.concatenate(signed), places, places + 60)
    true = np.array([jaccard(one, two) for one, two in zip(base, other, strict=True)])
    assert np.abs(estimated - true).max() < 4.5 * 0.5 / np.sqrt(128)
    assert abs((estimated - true).mean()) < 4 * 0.04 / np.sqrt(60)


def test_bytes_that_agree_by_chance_do_not_count():
    low = np.random.default_rng(0).integers(0, 256, (20_000, 128)).astype(np.uint8)
    places = np.arange(10_000)
    assert abs(similarity(low, places, places + 10_000).mean()) < 4 * np.sqrt(1 / 256 / 128 / 10_000)
    assert (similarity(low, places, places) == 1).all()


def test_shingles_are_those_of_each_text_alone():
    values = pl.Series(["abcdef", "", "abc", "A b\tC　DEF", "诊断意见书", "abcde"])
    hashes, offsets = shingles(values, np.zeros(6, np.uint64), 5, seed=0)
    assert np.diff(offsets).tolist() == [2, 0, 1, 2, 1, 1]
    assert (hashes[0:2] == hashes[3:5]).all()
    assert hashes[6] == hashes[0]
    assert len(np.unique(hashes)) == 4
    alone, _ = shingles(values[2:3], np.zeros(1, np.uint64), 5, seed=0)
    assert alone[0] == hashes[2]


@pytest.mark.parametrize("letters", [LATIN, HAN])
def test_similar_rows_are_found_and_others_are_not(letters):
    rng = random.Random(1)
    base = [written(rng, letters, 300) for _ in range(300)]
    near = [edited(rng, text, letters, 3) for text in base[:100]]
    far = [edited(rng, text, letters, 25) for text in base[100:200]]
    assert min(map(jaccard, base, near)) > 0.87
    assert max(map(jaccard, base[100:200], far)) < 0.5
    found = found_in(texts(base + near + far))
    assert (found.exact, found.near, found.compared) == (0, 100, 500)
    assert all(each.twin == each.row - 300 for each in found.near_first)
    assert len(found.near_first) == 100


def test_one_family_of_many_is_found_whole():
    rng = random.Random(2)
    base = written(rng, LATIN, 300)
    family = [base[:150] + f"{number:05}" + base[150:] for number in range(3000)]
    assert found_in(texts(family)).near == 2999


def test_rows_that_belong_together_are_told_together():
    rng = random.Random(12)
    base = [written(rng, LATIN, 300) for _ in range(4)]
    near = edited(rng, base[1], LATIN, 3)
    # 1, 5 and 7 are the same; 2 and 6 are near, and 8 says what 6 says; 3 and 4 are on their own.
    found = found_in(texts([*base, base[0], near, base[0], near]), 3)
    assert found.clusters == 2
    assert [(each.rows, each.exact, each.first) for each in found.largest] == [
        (3, True, [1, 5, 7]),
        (3, False, [2, 6, 8]),
    ]
    many = found_in(texts([base[0]] * 50 + [base[2]] * 2), first=1)
    assert many.clusters == 2
    assert [(each.rows, each.first) for each in many.largest] == [(50, list(range(1, 21)))]
    assert found_in(texts(base)).largest == []


def test_what_leaks_into_training():
    rng = random.Random(5)
    base = [written(rng, LATIN, 200) for _ in range(50)]
    # The held-out rows come first: the order must not matter.
    held_out = [base[0], edited(rng, base[1], LATIN, 1), written(rng, LATIN, 200), base[0]]
    table = texts(held_out + base, ["test", "validation", "test", "test"] + ["train"] * 50)
    found = found_in(table)
    assert (found.held_out, found.leaked_exact, found.leaked_near) == (4, 2, 1)
    assert [(each.row, each.split, each.twin) for each in found.leaked_first] == [
        (1, "test", 5),
        (2, "validation", 6),
        (4, "test", 5),
    ]
    assert [each.exact for each in found.leaked_first] == [True, False, True]
    assert found.leaked_first[0].similar == 1.0 > found.leaked_first[1].similar > 0.8
    assert found_in(table, 3) == found


def test_many_held_out_rows_of_a_family_leak():
    rng = random.Random(6)
    base = written(rng, LATIN, 300)
    family = [base[:150] + f"{number:05}" + base[150:] for number in range(1000)]
    assert found_in(texts(family, ["train"] * 3 + ["test"] * 997)).leaked_near == 997


def test_a_common_system_message_and_another_image_make_no_twins():
    def row(question: str) -> list[dict[str, str]]:
        said = [
            ("system", system),
            ("user", question),
            ("assistant", "Yes."),
        ]
        return [{"role": role, "content": content} for role, content in said]

    rng = random.Random(7)
    system = written(rng, LATIN, 3000)
    talks = pa.table({"messages": pa.array([row(written(rng, LATIN, 60)) for _ in range(50)], MESSAGES)})
    assert found_in(talks).near == 0
    asked = "What does this chest radiograph show? Answer in one sentence."
    seen = texts([asked] * 4 + [asked + "!"], images=[["1"], ["2"], ["3"], ["1"], ["2"]])
    found = found_in(seen)
    assert [(each.row, each.twin) for each in found.exact_first] == [(4, 1)]
    assert [(each.row, each.twin) for each in found.near_first] == [(5, 2)]


def test_labels_that_contradict_each_other():
    found = found_in(texts(["a", "a", "b", "b", "c", "c"], label=["x", "y", "x", "x", "x", None]))
    assert found.conflicting_labels == 2
    assert found_in(texts(["a", "a"], label=[["x", "y"], ["y", "x"]])).conflicting_labels == 0


def test_empty_rows_are_equal_and_not_similar():
    found = found_in(texts(["", " ", "\n", "", None]))
    assert (found.exact, found.near) == (1, 0)
    assert found_in(texts([])).rows == 0
    assert find_duplicates([]).rows == 0


def test_above_the_limit_the_equal_are_all_counted_and_the_similar_are_a_lower_bound():
    rng = random.Random(8)
    base = [written(rng, LATIN, 100) for _ in range(600)]
    near = [edited(rng, text, LATIN, 1) for text in base]
    splits = ["train"] * 1200 + ["test"] * 600
    whole = found_in(texts(base + near + base, splits))
    assert (whole.exact, whole.near, whole.leaked_exact, whole.compared) == (600, 600, 600, 1800)
    some = found_in(texts(base + near + base, splits), 200, max_rows=500)
    assert (some.exact, some.leaked_exact, some.exact_first) == (600, 600, whole.exact_first)
    assert 0 < some.near < whole.near
    assert 100 < some.compared < 1800


def test_held_out_rows_are_kept_before_those_of_train():
    rng = random.Random(10)
    base = [written(rng, LATIN, 100) for _ in range(1000)]
    held_out = [edited(rng, text, LATIN, 1) for text in base[:150]]
    found = found_in(texts(held_out + base, ["test"] * 150 + ["train"] * 1000), 100, max_rows=700)
    assert found.compared <= 700
    assert 55 <= found.leaked_near <= 95  # about half: each is compared, but half of train is left out


def test_repeats_take_no_room():
    rng = random.Random(11)
    base = [written(rng, LATIN, 100) for _ in range(100)]
    found = found_in(texts(base * 20), 130, max_rows=500)
    assert (found.exact, found.compared) == (1900, 2000)


def test_a_seed_decides_and_nothing_else():
    rng = random.Random(9)
    base = [written(rng, LATIN, 120) for _ in range(200)]
    table = texts(base + [edited(rng, text, LATIN, 2) for text in base])
    assert found_in(table, 13, seed=4) == found_in(table, 400, seed=4)
    assert msgspec.json.decode(msgspec.json.encode(found_in(table)), type=Duplicates) == found_in(table)


def test_bands_miss_few_pairs_at_the_threshold():
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
        bands, rows = banding(threshold)
        assert bands * rows <= 128
        assert (1 - threshold**rows) ** bands <= 0.005


@pytest.mark.parametrize("threshold", [0, -1, 1.01])
def test_a_threshold_that_is_none(threshold):
    with pytest.raises(ValueError, match="is no similarity; give one above 0 and at most 1"):
        find_duplicates([], threshold=threshold)
    with pytest.raises(ValueError, match="give 1 or more"):
        find_duplicates([], max_rows=0)
