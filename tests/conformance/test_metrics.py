"""What every metric promises, and what each gives on cases worked out by hand."""

import math

import pytest
import sacrebleu

from kit.rpc.errors import Invalid
from services.evaluator.bootstrap import interval
from services.evaluator.metrics import METRICS, check_metrics, kind_of, make

#: Answers with references, of each kind of answer.
PAIRS = {
    "text": [
        ("card_lost", "card_lost"),
        ("the cat sat on the mat", "the cat lay on the mat"),
        ("右肺上叶见结节影", "右肺上叶见结节，大小约一厘米"),
        ("", "something"),
        ("something", "!"),
        ("é\u0301 ﬁ １２", "é fi 12"),
        ("\ud800", "x"),
    ],
    "preference": [("chosen", "chosen"), ("rejected", "chosen"), ("tie", "chosen")],
    "labels": [('["a"]', '["a"]'), ('["a"]', '["a", "b"]'), ('["b"]', '["c"]'), ('["b", "d"]', '["b"]'), ("[]", "[]")],
    "spans": [('["0:3:A"]', '["0:3:A", "4:6:B"]'), ('["0:3:B"]', '["0:3:A"]'), ("[]", "[]")],
    "ranking": [("[0, 1, 2]", "[0]"), ("[2, 1, 0]", "[0, 1]"), (str(list(range(12))), "[11]")],
}
#: An answer as good as can be with its reference, then one without any merit.
EXTREMES = {
    "text": [(text, text, "zzz") for text in
             ("refund_missing", "where is my card?", "双肺纹理清晰，未见明显异常。", "余额")],
    "preference": [("chosen", "chosen", "rejected")],
    "labels": [('["a"]', '["a"]', '["b"]'), ('["ä", "b"]', '["b", "ä"]', "[]")],
    "spans": [('["0:3:A"]', '["0:3:A"]', '["0:4:A", "0:3:B"]'), ("[]", "[]", '["0:1:A"]')],
    "ranking": [(str([11, *range(11)]), "[11]", str(list(range(12))))],
}  # fmt: skip


def made(name):
    kind = kind_of(name)
    return make(name, [text for case in (*PAIRS[kind], *EXTREMES[kind]) for text in case])


@pytest.fixture(params=sorted(METRICS))
def metric(request):
    return made(request.param)


def test_scores_are_finite_and_in_range(metric):
    for answer, reference in PAIRS[metric.reads]:
        score = metric.score_row(metric.measure(answer, reference))
        assert 0 <= score <= 1 + 1e-9 and math.isfinite(score)


def test_statistics_have_one_length_and_add_up_to_a_score(metric):
    rows = [metric.measure(answer, reference) for answer, reference in PAIRS[metric.reads]]
    assert len({len(row) for row in rows}) == 1
    assert 0 < metric.aggregate(added(rows)) < 1


def test_the_reference_itself_scores_one_and_another_answer_the_least(metric):
    for answer, reference, other in EXTREMES[metric.reads]:
        assert metric.score_row(metric.measure(answer, reference)) == pytest.approx(1)
        # The last of twelve documents has the reciprocal rank 1/12.
        assert metric.score_row(metric.measure(other, reference)) == pytest.approx(0, abs=1 / 12)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_it_is_deterministic_and_stateless(name):
    metric, (one, other, *_) = made(name), PAIRS[kind_of(name)]
    before = metric.measure(*other)
    metric.measure(*one)
    assert metric.measure(*other) == before == made(name).measure(*other)


def test_intervals_hold_the_value_and_shrink_with_rows(metric):
    few = [metric.measure(*WELL[metric.reads]), metric.measure(*BADLY[metric.reads])] * 8
    low, high = interval(metric, few)
    value = metric.aggregate(added(few))
    assert low < value < high
    lower, higher = interval(metric, few * 16)
    assert higher - lower < (high - low) / 2
    assert interval(metric, few) == (low, high)


WELL = {
    "text": ("a b c d e", "a b c d e"),
    "preference": ("chosen", "chosen"),
    "labels": ('["a"]', '["a"]'),
    "spans": ('["0:3:A"]', '["0:3:A"]'),
    "ranking": (str(list(range(12))), "[0]"),
}
BADLY = {
    "text": ("x y z", "a b c d e"),
    "preference": ("rejected", "chosen"),
    "labels": ('["b"]', '["a"]'),
    "spans": ('["0:4:A"]', '["0:3:A"]'),
    "ranking": (str(list(range(12))), "[11]"),
}


def added(rows):
    return [sum(column) for column in zip(*rows, strict=True)]


def scores(name, pairs):
    """The score of each pair of an answer and a reference, then that of all."""
    metric = make(name, [text for pair in pairs for text in pair])
    rows = [metric.measure(*pair) for pair in pairs]
    return [metric.score_row(row) for row in rows], metric.aggregate(added(rows))


def test_preference_accuracy_splits_ties():
    assert scores("preference_accuracy", [("chosen", "chosen"), ("tie", "chosen"), ("rejected", "chosen")]) == (
        [1, 0.5, 0],
        0.5,
    )


def test_metrics_of_one_label_a_row():
    # a: 2 right, 1 too many, 1 missed, F1 2/3. b: 1, 1, 0, F1 2/3. c: 0, 0, 1, F1 0. scikit-learn: 0.6, 0.6, 0.444….
    pairs = [(f'["{ours}"]', f'["{theirs}"]') for ours, theirs in zip("aabba", "aaabc", strict=True)]
    assert scores("accuracy", pairs) == ([1, 1, 0, 1, 0], pytest.approx(3 / 5))
    assert scores("micro_f1", pairs)[1] == pytest.approx(3 / 5)
    assert scores("macro_f1", pairs)[1] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_metrics_of_several_labels_a_row():
    # a: F1 1. b: 1 right, 1 too many, 1 missed, F1 1/2. c: 1 missed. d: 1 too many. scikit-learn: 0.4, 0.6, 0.375.
    answers = ['["a"]', '["a"]', '["b"]', '["b", "d"]', "[]"]
    references = ['["a"]', '["a", "b"]', '["c"]', '["b"]', "[]"]
    pairs = list(zip(answers, references, strict=True))
    assert scores("accuracy", pairs) == ([1, 0, 0, 0, 1], pytest.approx(2 / 5))
    assert scores("micro_f1", pairs) == ([1, pytest.approx(2 / 3), 0, pytest.approx(2 / 3), 1], pytest.approx(6 / 10))
    assert scores("macro_f1", pairs) == ([1, 0.5, 0, 0.5, 1], pytest.approx(0.375))


def test_a_label_that_only_another_version_gave_changes_no_figure():
    pairs = [('["a"]', '["a"]'), ('["a"]', '["b"]')]
    metric = make("macro_f1", ['["z"]', *(text for pair in pairs for text in pair)])
    assert metric.aggregate(added([metric.measure(*pair) for pair in pairs])) == scores("macro_f1", pairs)[1]


def test_metrics_of_an_order_of_documents():
    # What fits, 3, 0 and 9, stands at the ranks 1, 3 and 11. scikit-learn's ndcg_score: 0.70391….
    order, fits = "[3, 7, 0, 11, 1, 2, 4, 5, 6, 8, 9, 10]", "[0, 3, 9]"
    assert scores("recall_at_1", [(order, fits)])[1] == pytest.approx(1 / 3)
    assert scores("recall_at_10", [(order, fits)])[1] == pytest.approx(2 / 3)
    assert scores("mrr", [(order, fits), ("[1, 0]", "[0]")]) == ([1, 0.5], 0.75)
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert scores("ndcg_at_10", [(order, fits)])[1] == pytest.approx((1 + 1 / 2) / best)
    assert (1 + 1 / 2) / best == pytest.approx(0.7039180890341348)
    # The tenth place counts, the eleventh does not, and of more than ten that fit no more than ten can.
    places = list(range(12))
    for name, tenth in (("recall_at_10", 1), ("ndcg_at_10", 1 / math.log2(11))):
        assert scores(name, [(str(places), "[9]"), (str(places), "[10]")])[0] == [pytest.approx(tenth), 0]
    assert scores("ndcg_at_10", [(str(places), str(places))])[1] == pytest.approx(1)


@pytest.mark.parametrize("name", ["macro_f1", "micro_f1", "accuracy", "mrr", "ndcg_at_10", "recall_at_1"])
def test_what_is_no_list_is_no_score(name):
    with pytest.raises(ValueError):
        make(name, ["[]"]).measure("words", "[0]")


def test_exact_match_looks_through_width_and_white_space():
    metric = made("exact_match")
    assert metric.measure(" ＡＢＣ　１ ", "ABC 1") == (1, 1)
    assert metric.measure("abc", "ABC") == (0, 1)


def test_rouge_l_of_chinese_counts_characters():
    # LCS 今天天气好 = 5 of 6 and of 5 characters: P 5/6, R 1, F = 2·P·R/(P+R) = 10/11.
    metric = made("rouge_l")
    assert metric.measure("今天天气很好。", "今天天气好")[0] == pytest.approx(10 / 11)
    # `v2` is one word beside three characters.
    assert metric.measure("胸片 v2 版", "胸片v2")[0] == pytest.approx(2 * (3 / 4) / (3 / 4 + 1))


def test_rouge_l_of_words():
    # LCS `the cat on the mat` = 5 of 6 words each.
    assert made("rouge_l").measure("the cat sat on the mat", "the cat lay on the mat")[0] == pytest.approx(5 / 6)


def test_bleu_of_chinese_counts_characters():
    # 今天天气很好 / 今天天气好啊: 1-grams 5/6, 2-grams 3/5, 3-grams 2/4, 4-grams 1/3; equal lengths.
    statistics = made("bleu_4").measure("今天天气很好", "今天天气好啊")
    assert statistics == (5, 3, 2, 1, 6, 5, 4, 3, 6, 6)
    assert made("bleu_4").score_row(statistics) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_boxes_are_paired_by_how_much_they_overlap():
    # 5 × 10 shared of 150; a box too many halves it; corners may come in any order and dress.
    half, whole = pytest.approx(1 / 3), "[[0, 0, 10, 10]]"
    pairs = [("[5, 0, 15, 10]", whole), (f"{whole} and (20,20),(30,30)", whole), ("<box>(10,10),(0,0)</box>", whole)]
    assert scores("box_iou", pairs)[0] == [half, 0.5, 1]
    two = "[[0, 0, 10, 10], [20, 0, 30, 10]]"
    assert scores("box_iou", [("[[20,0,30,10],[5,0,15,10]]", two)])[0] == [pytest.approx((1 + 1 / 3) / 2)]
    assert scores("box_iou", [("it is nowhere", whole), ("1 2 3", whole), ("none", "none")])[0] == [0, 0, 1]
    assert scores("box_iou", [("bbox_2d 0.5 1.5 2 3.", "[0.5, 1.5, 2, 3]")])[1] == 1


def test_character_accuracy_weighs_characters_and_not_rows():
    # kitten → sitting: 2 replaced, 1 put in, of 7 (Levenshtein's own case by way of Wagner and Fischer).
    assert scores("character_accuracy", [("kitten", "sitting")])[1] == pytest.approx(1 - 3 / 7)
    each, all_of_them = scores("character_accuracy", [("", "ab"), ("银行 12345678", "银行  １２345678")])
    assert each == [0, 1] and all_of_them == pytest.approx(1 - 2 / 13)
    assert scores("character_accuracy", [("far too much", "a")])[1] == 0


def test_word_accuracy_is_one_less_the_word_error_rate():
    # one replaced, one left out and one put in, of six words
    said = [("the dog sat on mat now", "The cat sat on the mat")]
    assert scores("word_accuracy", said)[1] == pytest.approx(1 - 3 / 6)
    each, all_of_them = scores("word_accuracy", [("", "do re"), ("Do  RE mi", "do re mi")])
    assert each == [0, 1] and all_of_them == pytest.approx(1 - 2 / 5)
    assert scores("word_accuracy", [("far too much", "a")])[1] == 0


@pytest.mark.parametrize("tokenize", ["13a", "zh"])
def test_bleu_is_sacrebleu_of_the_corpus(tokenize):
    pairs = {
        "13a": [
            ("the cat sat on the mat .", "the cat lay on the mat ."),
            ("he went home late", "he went home"),
        ],
        "zh": [("右肺上叶见结节影", "右肺上叶见结节，大小约一厘米"), ("双肺清晰", "双肺纹理清晰")],
    }[tokenize]
    metric = made("bleu_4")
    totals = [sum(column) for column in zip(*(metric.measure(*pair) for pair in pairs), strict=True)]
    answers, references = zip(*pairs, strict=True)
    expected = sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize=tokenize).score / 100
    assert metric.aggregate(totals) == pytest.approx(expected)


def test_the_bootstrap_interval_of_a_share_is_about_the_normal_one():
    metric = made("exact_match")
    low, high = interval(metric, [(1.0, 1.0)] * 160 + [(0.0, 1.0)] * 40)
    spread = 1.96 * math.sqrt(0.8 * 0.2 / 200)
    assert low == pytest.approx(0.8 - spread, abs=0.01) and high == pytest.approx(0.8 + spread, abs=0.01)
    assert interval(metric, [(1.0, 1.0)] * 30) == (1, 1)


def test_an_unknown_metric_is_named():
    with pytest.raises(Invalid, match="`meteor` is not known; it is one of accuracy, bleu_4, box_iou, character"):
        check_metrics(["rouge_l", "meteor"])
