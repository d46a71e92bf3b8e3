"""What is asked of rows beyond their schema: filters, labels, tags, de-identification, tokens, ids of their own."""

import io
import json
from contextlib import suppress
from dataclasses import replace
from time import process_time
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split, Whitespace

from kit.rpc.errors import Invalid
from sluice.rows.checking import Rules
from sluice.rows.convert import Outcome, convert
from sluice.rows.demands import Demands, check
from sluice.rows.demands.expressions import MOST_CHARACTERS, compiled
from sluice.rows.demands.lengths import PROBE
from sluice.rows.demands.views import Kind, views
from sluice.rows.erasing import digests
from sluice.rows.ids import SeenIds, Twins, of_part
from sluice.rows.parts import Part
from sluice.rows.recall import Forgotten
from sluice.rows.schemas import SCHEMAS
from tests.unit.rows.stored import contents

CALL = "姓名：张三，电话13812345678"


def run(
    rows: list[Any], demands: Demands, schema: str = "sft", *, quarantine: bool = True
) -> tuple[Outcome, list[Any], list[Any]]:
    parts: list[Part] = []
    aside: list[bytes] = []
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    rules = Rules(schema, quarantine=quarantine, demands=demands)
    outcome = convert(io.BytesIO(content), "rows.jsonl", rules, parts.append, aside=aside.append)
    return outcome, contents(parts), [json.loads(line) for line in b"".join(aside).splitlines()]


def asked(*answers: str, **about: Any) -> list[Any]:
    return [{"prompt": f"q{place}", "completion": answer, **about} for place, answer in enumerate(answers)]


def wrong(outcome: Outcome) -> list[tuple[int, str, str, str]]:
    return [(each.row, each.field, each.kind, each.found) for each in outcome.violations]


def answers(rows: list[Any]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("length(answer) > 3", ["long one", "发热 three"]),
        ("answer like '%发热%'", ["发热 three"]),
        ("answer ilike 'LONG%' or turns > 2", ["long one"]),
        ("not answer like '%o_e'", ["b", "发热 three"]),
        ("answer in ('b', 'c')", ["b"]),
        ("prompt = 'q1'", ["b"]),
        ("length(answer) between 1 and 8", ["long one", "b", "发热 three"]),
        ("length(answer) * 2 - 1 >= 15 and turns = 2", ["long one", "发热 three"]),
        ("case when prompt = 'q0' then true else false end", ["long one"]),
        ("id is null", ["long one", "b", "发热 three"]),
        ("id = 'x'", []),
        ("coalesce(id, 'none') = 'none' and starts_with(lower(answer), 'lo')", ["long one"]),
        ("regexp_like(answer, '^[a-z]$')", ["b"]),
        ("contains(messages, 'q2') and upper(trim(answer)) = '发热 THREE'", ["发热 three"]),
        ("answer || '!' = 'b!'", ["b"]),
        ("true", ["long one", "b", "发热 three"]),
        ("system is not null and length(system) > 0", []),
        ("answer not like '%o%'", ["b", "发热 three"]),
        ("answer not ilike 'LONG%'", ["b", "发热 three"]),
        ("not answer not like '%o%'", ["long one"]),
        ("lower(answer) not like 'b' and prompt not like 'q2'", ["long one"]),
        ("answer not rlike '^[a-z]$'", ["long one", "发热 three"]),
        ("not regexp_like(answer, '^[a-z]$')", ["long one", "发热 three"]),
        ("answer not in ('b', 'c')", ["long one", "发热 three"]),
        ("length(answer) not between 1 and 3", ["long one", "发热 three"]),
        ("id is not null", []),
        ("not (id is null)", []),
        (
            "case when prompt = 'q0' then 'x' when prompt = 'q1' then 'y' else 'z' end <> 'y'",
            ["long one", "发热 three"],
        ),
        ("1 / 0 > 5 or -1 / 0 < 5 or 0 / 0 = 0 / 0 or 5 % 0 >= 0", []),
        ("turns / (turns - 2) is null and 5 % (turns - 2) is null", ["long one", "b", "发热 three"]),
        ("9007199254740991 * 9007199254740991 > turns", ["long one", "b", "发热 three"]),
        ("turns * 9007199254740991 * 9007199254740991 > 0", ["long one", "b", "发热 three"]),
        ("1e300 * 1e300 > 5", []),
        (" or ".join(["answer = 'b'"] * 120), ["b"]),
    ],
)
def test_rows_are_kept_for_which_an_expression_is_true(expression: str, kept: list[str]) -> None:
    outcome, rows, aside = run(asked("long one", "b", "发热 three"), Demands(keep=expression))
    assert answers(rows) == kept and outcome.filtered == 3 - len(kept) and not aside
    assert sum(outcome.counts.values()) == (not kept)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("foo = 1", "has no column `foo`; there are messages, prompt, answer, system, turns, id"),
        ("length(answer) > 3 and x.answer = 'a'", r"has no column `x.answer`.*\(at character 24\)"),
        ("answer = ", "cannot be read"),
        ("answer ~ 'x'", r"cannot be read from `~` on \(at character 8\)"),
        ("answer = 'x", "cannot be read; is a quote open"),
        ("", None),
        ("answer", "gives text; give one that is true or false"),
        ("answer > 3", r"compares text with a number \(at character 1\)"),
        ("lower(turns) = 'a'", "needs text where `turns` is, which is a number"),
        ("answer like prompt", "needs a text in quotes where `prompt` is"),
        ("regexp_like(answer, '(')", "is no regular expression"),
        ("count(*) > 1", r"may not use `COUNT\(\*\)`; there are and, or"),
        ("row_number() over () = 1", "may not use"),
        ("answer in (select a from b)", "needs texts or numbers in `in"),
        ("exists(select 1)", "may not use"),
        ("lenght(answer) > 3", r"may not use `LENGHT\(answer\)`; perhaps `length`\?"),
        ("read_csv('/etc/passwd') = 'x'", "may not use `READ_CSV"),
        ("lpad(answer, 1000000000) = 'x'", "may not use"),
        ("answer = 'a'; drop table x", "may not use|no single"),
        ("select 1", "may not use"),
        ("case answer when 'a' then true end", "nothing after `case`"),
        ("(" * 900 + "true" + ")" * 900, "nested too deeply|may not|cannot be read"),
        ("answer = 'x' or " * 200 + "true", "more than 2000 characters"),
        ("regexp_like(answer, 'B', 'i')", "may not use .* with `flag`"),
        ("trim(leading 'F' from answer) = 'x'", "may not use .* with `(position|expression)`"),
        ("ltrim(answer) = 'x'", "may not use .* with `position`"),
        ("rtrim(answer) = 'x'", "may not use .* with `position`"),
        ("trim(answer, 'x') = 'x'", "may not use .* with `expression`"),
        ("length(answer, 'utf8') > 1", "may not use .* with `binary`"),
        ("5 between symmetric 9 and 1", "may not use .* with `symmetric`"),
        ("answer like 'a!%' escape '!'", "may not use"),
        ("- " * 300 + "1 > 0", "nested too deeply"),
        ("j_s_o_n_object(id)", "may not use `jsonobject`"),
        ("nullable<nullable<int>>", "cannot be read"),
    ],
)
def test_a_bad_expression_is_refused_before_a_row_is_read(expression: str, said: str | None) -> None:
    if said is None:
        check(Demands(keep=expression), "sft")
        return
    with pytest.raises(Invalid, match=said) as refused:
        check(Demands(keep=expression), "sft")
    assert refused.value.message.startswith("the expression of `keep`")


@pytest.mark.parametrize(
    ("level", "core", "close"),
    [
        ("case when true then ", "true", " end"),
        ("if(true, ", "true", ", true)"),
        ("if(", "true", ", true, true)"),
        ("case when true then true else ", "true", " end"),
        ("(", "true", " between true and true)"),
        ("case when (", "1", ") in (1, 2) then 1 end"),
        ("struct(", "id", ")"),
        ("to_array(", "id", ")"),
        ("char(", "1", ")"),
    ],
)
def test_the_time_for_an_expression_does_not_double_with_each_level(level: str, core: str, close: str) -> None:
    began = process_time()
    for levels in (20, 39, 80):
        text = (level * levels + core + close * levels)[:MOST_CHARACTERS]
        with suppress(Invalid):
            pl.select(compiled(text, {}, "`keep`").made)
    assert process_time() - began < 2  # twice the time for each level would be hours


@pytest.mark.parametrize(
    "text",
    [
        "case when true then " * 20 + "true" + " end" * 20,
        "if(" * 20 + "true" + ", true, true)" * 20,
        "(" * 6 + "true" + " between true and true)" * 6,
    ],
)
def test_what_is_nested_as_people_nest_it_is_read(text: str) -> None:
    assert pl.select(compiled(text, {}, "`keep`").made).item() is True


WORDS = """answer prompt turns id tags nothing 'a' '%' '(' 1 2.5 true null and or not = <> < + - * / % || ( ) , like
ilike in between is case when then else end coalesce length lower regexp_like contains cast select from ;
-- /* */ " ` 诊"""


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from([*WORDS.split(), "\x00"]), max_size=12).map(" ".join)))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    columns = views("sft")
    try:
        value = compiled(text, columns, "`keep`")
    except Invalid:
        return
    rows = pl.DataFrame({"id": ["a", None], "group": [None, "g"], "tags": [["x"], ["y"]]})
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    found = rows.with_columns(messages=pl.Series([talk, talk])).select(value.made)
    assert len(found) in (1, 2)
    kinds = {Kind.TRUTH: (pl.Boolean,), Kind.TEXT: (pl.String,), Kind.NUMBER: (pl.Int64, pl.Float64)}
    assert found.dtypes[0] in kinds[value.kind]


def test_rows_get_labels_ids_groups_and_tags() -> None:
    label = "case when text like '%好%' then 'good' when length(text) > 4 then 'long' end"
    rows = [{"text": "很好"}, {"text": "long text", "label": "own"}, {"text": "x", "label": "own"}, {"text": "y"}]
    outcome, found, _ = run(rows, Demands(set={"label": label, "group": "'g' || text"}), "classification")
    assert [(row["text"], row["label"], row["group"]) for row in found] == [
        ("很好", ["good"], "g很好"),
        ("long text", ["long"], "glong text"),
        ("x", ["own"], "gx"),
    ]
    assert wrong(outcome) == [(4, "label", "missing-field", "none, and the expression gives none")]
    tags = {"long": "length(answer) > 3", "said": "answer", "turns": "turns"}
    _, tagged, _ = run([*asked("yes sir", tags=["own"]), *asked("no")], Demands(tags=tags))
    assert [row["tags"] for row in tagged] == [["own", "long", "said=yes sir", "turns=2"], ["said=no", "turns=2"]]
    verdicts = [{"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "a long one", "label": False}]
    _, judged, _ = run(verdicts, Demands(set={"label": "length(completion) > 3"}), "feedback")
    assert [row["label"] for row in judged] == [False, True]


def test_labels_are_given_to_rows_in_columns_and_one_by_one_alike() -> None:
    rows = [{"text": "a"}, {"text": "b", "label": "own"}, {"text": 5}]
    demands = Demands(set={"label": "'x'"})
    alike = [run(each, demands, "classification")[1] for each in ([rows[0]], rows[:2], [rows[2], rows[0]])]
    assert [[row["label"] for row in found] for found in alike] == [[["x"]], [["x"], ["x"]], [["x"]]]


UNLABELED = "none, and the expression gives none"


def test_a_row_without_a_label_has_none_for_expressions() -> None:
    rows: list[Any] = [{"text": "a"}, {"text": "b", "label": "own"}, {"text": "c", "label": None}]
    for some in (rows, rows[:1], rows[1:]):  # columns, and one by one
        told = Demands(set={"label": "coalesce(label, 'none')"}, tags={"was": "label", "bare": "label is null"})
        outcome, found, _ = run(some, told, "classification")
        assert not outcome.counts
        for row in found:
            own = row["text"] == "b"
            assert (row["label"], row["tags"]) == ((["own"], ["was=own"]) if own else (["none"], ["bare"]))
    same, found, _ = run(rows, Demands(set={"label": "case when text = 'a' then 'x' else label end"}), "classification")
    assert [row["label"] for row in found] == [["x"], ["own"]] and wrong(same) == [
        (3, "label", "missing-field", UNLABELED)
    ]
    kept, found, _ = run(rows, Demands(set={"label": "'x'"}, keep="label is null"), "classification")
    assert [row["text"] for row in found] == ["a", "c"] and kept.filtered == 1
    said, found, _ = run(
        [{"text": "a", "label": "\x00"}], Demands(set={"label": "case when false then 'x' end"}), "classification"
    )
    assert not said.counts and found[0]["label"] == ["\x00"]  # odd, and yet a label


def test_a_row_of_feedback_without_a_verdict_is_never_taken_for_a_good_one() -> None:
    rows: list[Any] = [{"prompt": "q", "completion": each} for each in ("good", "bad", "mixed")]
    demands = Demands(set={"label": "case when completion = 'good' then true when completion = 'bad' then false end"})
    for some in (rows, [*rows, {"prompt": "q", "completion": "x", "label": False}]):
        outcome, found, _ = run(some, demands, "feedback")
        assert [row["label"] for row in found] == [True, False, False][: len(some) - 1]
        assert wrong(outcome) == [(3, "label", "missing-field", UNLABELED)]
    assert wrong(run(rows[2:], Demands(set={"label": "label"}), "feedback")[0]) == [
        (1, "label", "missing-field", UNLABELED)
    ]


def test_a_name_with_nothing_in_it_is_none_and_numbers_are_as_people_write_them() -> None:
    rows: list[Any] = [{"text": "a", "id": "own"}, {"text": "b"}, {"text": "c"}]
    outcome, found, _ = run(rows, Demands(set={"id": "''", "group": "if(text = 'a', ' ', '')"}), "pretrain")
    assert not outcome.counts and [row.get("id") for row in found] == ["own", None, None]
    assert not any(row.get("group") for row in found)
    numbers = Demands(tags={"n": "length(text) / 2", "m": "length(text) * 3", "none": "1 / (length(text) - 1)"})
    assert run(rows[:1], numbers, "pretrain")[1][0]["tags"] == ["n=0.5", "m=3"]


@pytest.mark.parametrize(("column", "by"), [("id", {"set": {"id": "text"}}), ("group", {"set": {"group": "text"}})])
def test_rows_that_were_forgotten_do_not_come_back_under_a_name_they_are_given(column: str, by: Any) -> None:
    forgotten = Forgotten("salt", list(digests(["a"], column, "salt")))
    content = b'{"text":"a"}\n{"text":"b"}\n{"text":"dropped"}\n'
    parts: list[Part] = []
    rules = Rules("pretrain", demands=Demands(**by, keep="text <> 'dropped'"), forgotten=forgotten)
    outcome = convert(io.BytesIO(content), "a.jsonl", rules, parts.append)
    assert [row["text"] for row in contents(parts)] == ["b"]
    assert (outcome.forgotten, outcome.filtered, outcome.row_count) == (1, 1, 1)


def test_rows_that_were_forgotten_do_not_come_back_under_a_tag_nor_are_they_put_aside() -> None:
    forgotten = Forgotten("salt", list(digests(["who=a"], "tags", "salt")))
    content = b'{"text":"a"}\n{"text":"b"}\n'
    parts: list[Part] = []
    aside: list[bytes] = []
    demands = Demands(tags={"who": "text"}, set={"label": "if(text = 'b', 'x')"})
    rules = Rules("classification", quarantine=True, demands=demands, forgotten=forgotten)
    outcome = convert(io.BytesIO(content), "a.jsonl", rules, parts.append, aside=aside.append)
    assert [row["text"] for row in contents(parts)] == ["b"] and outcome.forgotten == 1
    assert not aside and not outcome.counts  # it would have been wrong, too


@pytest.mark.parametrize(
    ("demands", "schema", "said"),
    [
        (Demands(set={"label": "'x'"}), "sft", "`label` cannot be set; of these rows `id`, `group` can"),
        (Demands(set={"text": "'x'"}), "pretrain", "`text` cannot be set"),
        (Demands(set={"label": "true"}), "classification", "give one that is a text or a number"),
        (Demands(set={"label": "'x'"}), "feedback", "give one that is true or false"),
        (Demands(tags={"a": "nothing"}), "sft", "the expression of tag `a` has no column `nothing`"),
        (Demands(max_tokens=5), "sft", "needs both"),
    ],
)
def test_what_cannot_be_asked_is_said(demands: Demands, schema: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        check(demands, schema)
    with pytest.raises(Invalid, match=said):
        run(asked("a"), demands, schema)


def test_reporting_counts_and_changes_nothing() -> None:
    outcome, rows, _ = run(asked(CALL, "ok"), Demands(deidentify="report"), quarantine=False)
    assert answers(rows) == [CALL, "ok"] and outcome.accepted
    assert outcome.identified == {("PERSON_NAME", "messages[].content"): 1, ("CN_MOBILE", "messages[].content"): 1}


def test_masking_comes_before_keys_splits_and_tokens() -> None:
    numbers = [f"138{place:08d}" for place in range(40)]
    given = [{"prompt": "电话" + number, "completion": "ok"} for number in numbers]
    outcome, rows, _ = run(given, Demands(deidentify="mask"), quarantine=False)
    assert {row["messages"][0]["content"] for row in rows} == {"电话<CN_MOBILE>"} and outcome.accepted
    assert sorted(outcome.split_rows.values()) == [0, 0, 40]  # equal content is in one split
    assert outcome.identified == {("CN_MOBILE", "messages[].content"): 40}


PIECES = st.sampled_from(
    [CALL, "a@example.com", "ok", "", " ", "13912345678", "诊断", "\x00", "１３８１２３４５６７８"]
)
TEXTS = st.lists(PIECES, max_size=3).map("，".join)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS, "tags": st.lists(TEXTS, max_size=2)}), max_size=4
    )
)
def test_masking_leaves_nothing_to_be_found_and_every_right_row(rows: list[Any]) -> None:
    plain, found, _ = run(rows, Demands())
    outcome, masked, _ = run(rows, Demands(deidentify="mask"))
    again, same, _ = run(masked, Demands(deidentify="mask"))
    assert len(masked) == len(found) and outcome.counts == plain.counts
    assert same == masked and not again.identified
    refused, left, _ = run(rows, Demands(deidentify="refuse"))
    assert len(left) + refused.counts["identifies-person"] == len(found)
    assert left == [row for row in found if row in masked]


def test_names_that_identify_are_not_masked_but_refused() -> None:
    rows: list[dict[str, Any]] = [*asked("a", group="13812345678"), *asked(CALL, id="x", tags=["zhang@example.com"])]
    outcome, found, aside = run(rows, Demands(deidentify="mask"))
    assert wrong(outcome) == [(1, "group", "identifies-person", "what looks like CN_MOBILE")]
    assert found[0]["tags"] == ["<EMAIL>"] and len(found) == len(aside) == 1


def test_refusing_puts_rows_aside_and_tells_no_content() -> None:
    outcome, rows, aside = run(asked("fine", CALL, "ok"), Demands(deidentify="refuse"))
    assert answers(rows) == ["fine", "ok"] and outcome.put_aside == 1
    found = "what looks like CN_MOBILE, PERSON_NAME"
    assert wrong(outcome) == [(2, "messages[].content", "identifies-person", found)]
    assert CALL in json.loads(aside[0]["content"])["completion"]  # who may read it may repair it
    assert "1381234" not in repr(outcome) and "张三" not in repr(outcome)
    assert not outcome.identified  # of the rows that are taken
    refused, _, _ = run(asked(CALL), Demands(deidentify="refuse"), quarantine=False)
    assert not refused.accepted and refused.counts == {"identifies-person": 1}


def test_rows_that_grow_too_large_by_what_is_asked_are_wrong() -> None:
    rows = asked("short", "long " * 400_000, "long " * 400_000)
    grouped, found, _ = run(rows, Demands(set={"group": "case when prompt = 'q1' then answer end"}))
    assert [(each[0], each[2]) for each in wrong(grouped)] == [(2, "row-too-large")] and len(found) == 2


def test_what_is_left_out_is_asked_nothing() -> None:
    outcome, rows, _ = run(asked(CALL, "ok"), Demands(keep="answer = 'ok'", deidentify="refuse"))
    assert answers(rows) == ["ok"] and outcome.filtered == 1 and not outcome.counts


def tokenizer() -> bytes:
    made = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(3)  # of the model; here everything counts
    return made.to_str().encode()


def test_rows_of_too_many_tokens_are_wrong() -> None:
    rows = asked("a b", "a " * 700, "a b c")
    outcome, found, _ = run(rows, Demands(max_tokens=4, tokenizer=tokenizer()))
    assert wrong(outcome) == [(2, "", "too-many-tokens", "701 tokens")]
    assert answers(found) == ["a b", "a b c"] and outcome.violations[0].expected == "at most 4 tokens"
    masked = Demands(deidentify="mask", max_tokens=9, tokenizer=tokenizer())
    assert run(asked("电话 13812345678 13912345678 13712345678"), replace(masked, max_tokens=3))[0].counts
    unusable, _, _ = run(asked("a"), Demands(max_tokens=4, tokenizer=b"{}"))
    assert unusable.counts == {"unusable-tokenizer": 1} and not unusable.accepted


def of_model(**parts: Any) -> bytes:
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": words, **parts}).encode()


@pytest.mark.parametrize(
    "content",
    [
        of_model(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "zz"}),
        of_model(model={"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}),
        of_model(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # Rust panics
    ],
)
def test_a_tokenizer_that_fails_is_said_before_rows_are_read(content: bytes) -> None:
    outcome, rows, _ = run(asked("b", "c"), Demands(max_tokens=4, tokenizer=content))
    assert wrong(outcome) == [(0, "", "unusable-tokenizer", "a file that is none, or fails")] and not rows


def test_a_row_that_a_tokenizer_fails_on_is_wrong_and_others_are_not() -> None:
    known = {word: place for place, word in enumerate({letter for text in PROBE for letter in text})}
    made = Tokenizer(WordLevel(known, unk_token="[UNK]"))
    made.pre_tokenizer = Split("", "isolated")
    given = [{"text": each} for each in ("a", "ß", "e")]
    outcome, rows, _ = run(given, Demands(max_tokens=9, tokenizer=made.to_str().encode()), "pretrain")
    assert wrong(outcome) == [(2, "", "unusable-tokenizer", "a text it fails on")]
    assert [row["text"] for row in rows] == ["a", "e"]


def test_an_id_is_had_by_one_row() -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "id": 7}, {"text": "b"}, {"text": "c", "id": "7"}]
    rows += [{"text": " ", "id": "8"}, {"text": "d", "id": "8"}, {"text": "e", "id": 7}]
    outcome, found, aside = run(rows, Demands(), "pretrain")
    assert [each for each in wrong(outcome) if each[0] != 4] == [
        (3, "id", "duplicate-id", "the id of row 1"),
        (6, "id", "duplicate-id", "the id of row 1"),
    ]
    assert [row["text"] for row in found] == ["a", "b", "d"] and [each["row"] for each in aside] == [4, 3, 6]


def test_ids_are_told_apart_in_any_number_and_order() -> None:
    order = np.random.default_rng(0).permutation(60_000)
    seen, twins = SeenIds(), Twins(SeenIds)
    for start in range(0, len(order), 1_000):
        ids = pa.chunked_array([pa.array([str(each) for each in order[start : start + 1_000]])])
        numbers = np.arange(start + 1, start + 1_001)
        assert not seen.add(ids, numbers) and not twins.find(ids, numbers, "a.jsonl")
    again = pa.chunked_array([pa.array([str(order[41_234]), None, "new", str(order[0]), "new"])])
    assert seen.find(again) == {0: 41_235, 3: 1}
    assert seen.add(again, np.arange(60_001, 60_006)) == {0: 41_235, 3: 1, 4: 60_003}
    found = {place: error.found for place, error in twins.find(again, np.arange(1, 6), "b.jsonl").items()}
    assert found == {
        0: "the id of row 41235 of a.jsonl",
        3: "the id of row 1 of a.jsonl",
        4: "the id of row 3 of b.jsonl",
    }


def test_ids_of_the_version_before_are_asked_for_when_there_is_an_id() -> None:
    asked_for = []

    def before() -> SeenIds:
        asked_for.append(1)
        seen = SeenIds()
        seen.add(of_part(io.BytesIO(stored)), np.arange(11, 13))
        return seen

    parts: list[Part] = []
    convert(io.BytesIO(b'{"text":"a","id":"x"}\n{"text":"b","id":"y"}\n'), "a.jsonl", Rules("pretrain"), parts.append)
    stored = parts[0].content
    assert (
        convert(io.BytesIO(b'{"text":"c"}\n'), "a.jsonl", Rules("pretrain"), before=before).accepted and not asked_for
    )
    content = io.BytesIO(b'{"text":"c","id":"z"}\n{"text":"d","id":"y"}\n')
    outcome = convert(content, "a.jsonl", Rules("pretrain"), before=before)
    assert wrong(outcome) == [(2, "id", "duplicate-id", "the id of row 12 of the version that is appended to")]
    assert asked_for == [1]


ROWS: dict[str, dict[str, Any]] = {
    "sft": {"prompt": "q", "completion": "a"},
    "pretrain": {"text": "a"},
    "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "feedback": {"prompt": "q", "completion": "a", "label": True},
    "retrieval": {"query": "q", "positive": "a", "negatives": ["b", "c"]},
    "classification": {"text": "a", "label": "x"},
    "entities": {"text": "a", "entities": [[0, 1, "x"]]},
}


def test_spans_stay_with_their_words_where_a_text_is_masked() -> None:
    text = "Dr Li (13812345678) saw 13912345678 in Leeds."
    named = [text.index(word) for word in ("Li", "138", "678 in", "Leeds")]
    spans = [
        [named[0], named[0] + 2, "A"],
        [named[1], named[1] + 11, "B"],
        [named[2], named[2] + 6, "C"],  # begins within what is masked
        [named[3], named[3] + 5, "D"],
    ]
    rows = [{"text": text, "entities": spans}, {"text": "Li", "entities": [[0, 2, "A"]]}]
    _, (first, second), _ = run(rows, Demands(deidentify="mask"), "entities")
    said = first["text"]
    assert "138" not in said and second == {"text": "Li", "entities": [{"start": 0, "end": 2, "label": "A"}]}
    words = [said[each["start"] : each["end"]] for each in first["entities"]]
    assert words == ["Li", "<CN_MOBILE>", "<CN_MOBILE_2> in", "Leeds"]


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_every_column_of_every_schema_can_be_spoken_of(schema: str) -> None:
    for name, (kind, _) in views(schema).items():
        true = {Kind.TEXT: f"{name} = {name} or {name} is null", Kind.NUMBER: f"{name} >= 0", Kind.TRUTH: name}[kind]
        check(Demands(keep=true), schema)
        if schema in ROWS:
            assert len(run([ROWS[schema]], Demands(keep=true, tags={"x": "true"}), schema)[1]) == 1, name
