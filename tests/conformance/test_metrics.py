"""What every metric promises, and what each gives on cases worked out by hand."""

import math

import pytest
import sacrebleu

from kit.rpc.errors import Invalid
from services.evaluator.bootstrap import interval
from services.evaluator.metrics import METRICS, check_metrics

TEXTS = [
    ("card_lost", "card_lost"),
    ("the cat sat on the mat", "the cat lay on the mat"),
    ("右肺上叶见结节影", "右肺上叶见结节，大小约一厘米"),
    ("", "something"),
    ("something", "!"),
    ("é\u0301 ﬁ １２", "é fi 12"),
    ("\ud800", "x"),
]


@pytest.fixture(params=sorted(METRICS))
def metric(request):
    return METRICS[request.param]()


def test_scores_are_finite_and_in_range(metric):
    for answer, reference in TEXTS:
        score = metric.score_row(metric.measure(answer, reference))
        assert 0 <= score <= 1 + 1e-9 and math.isfinite(score)


def test_statistics_have_one_length_and_add_up_to_a_score(metric):
    rows = [metric.measure(answer, reference) for answer, reference in TEXTS]
    assert len({len(row) for row in rows}) == 1
    assert 0 < metric.aggregate([sum(column) for column in zip(*rows, strict=True)]) < 1


def test_the_reference_itself_scores_one_and_another_answer_zero(metric):
    for text in ("refund_missing", "where is my card?", "双肺纹理清晰，未见明显异常。", "余额"):
        assert metric.score_row(metric.measure(text, text)) == pytest.approx(1)
        assert metric.score_row(metric.measure("zzz", text)) == 0


def test_it_is_deterministic_and_stateless(metric):
    before = metric.measure(*TEXTS[1])
    metric.measure(*TEXTS[2])
    assert metric.measure(*TEXTS[1]) == before == type(metric)().measure(*TEXTS[1])


def test_intervals_hold_the_value_and_shrink_with_rows(metric):
    few = [metric.measure("a b c d e", "a b c d e"), metric.measure("x y z", "a b c d e")] * 8
    low, high = interval(metric, few)
    value = metric.aggregate([sum(column) for column in zip(*few, strict=True)])
    assert low < value < high
    lower, higher = interval(metric, few * 16)
    assert higher - lower < (high - low) / 2
    assert interval(metric, few) == (low, high)


def test_exact_match_looks_through_width_and_white_space():
    metric = METRICS["exact_match"]()
    assert metric.measure(" ＡＢＣ　１ ", "ABC 1") == (1, 1)
    assert metric.measure("abc", "ABC") == (0, 1)


def test_rouge_l_of_chinese_counts_characters():
    # LCS 今天天气好 = 5 of 6 and of 5 characters: P 5/6, R 1, F = 2·P·R/(P+R) = 10/11.
    metric = METRICS["rouge_l"]()
    assert metric.measure("今天天气很好。", "今天天气好")[0] == pytest.approx(10 / 11)
    # `v2` is one word beside three characters.
    assert metric.measure("胸片 v2 版", "胸片v2")[0] == pytest.approx(2 * (3 / 4) / (3 / 4 + 1))


def test_rouge_l_of_words():
    # LCS `the cat on the mat` = 5 of 6 words each.
    assert METRICS["rouge_l"]().measure("the cat sat on the mat", "the cat lay on the mat")[0] == pytest.approx(5 / 6)


def test_bleu_of_chinese_counts_characters():
    # 今天天气很好 / 今天天气好啊: 1-grams 5/6, 2-grams 3/5, 3-grams 2/4, 4-grams 1/3; equal lengths.
    statistics = METRICS["bleu_4"]().measure("今天天气很好", "今天天气好啊")
    assert statistics == (5, 3, 2, 1, 6, 5, 4, 3, 6, 6)
    assert METRICS["bleu_4"]().score_row(statistics) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


@pytest.mark.parametrize("tokenize", ["13a", "zh"])
def test_bleu_is_sacrebleu_of_the_corpus(tokenize):
    pairs = {
        "13a": [
            ("the cat sat on the mat .", "the cat lay on the mat ."),
            ("he went home late", "he went home"),
        ],
        "zh": [("右肺上叶见结节影", "右肺上叶见结节，大小约一厘米"), ("双肺清晰", "双肺纹理清晰")],
    }[tokenize]
    metric = METRICS["bleu_4"]()
    totals = [sum(column) for column in zip(*(metric.measure(*pair) for pair in pairs), strict=True)]
    answers, references = zip(*pairs, strict=True)
    expected = sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize=tokenize).score / 100
    assert metric.aggregate(totals) == pytest.approx(expected)


def test_the_bootstrap_interval_of_a_share_is_about_the_normal_one():
    metric = METRICS["exact_match"]()
    low, high = interval(metric, [(1.0, 1.0)] * 160 + [(0.0, 1.0)] * 40)
    spread = 1.96 * math.sqrt(0.8 * 0.2 / 200)
    assert low == pytest.approx(0.8 - spread, abs=0.01) and high == pytest.approx(0.8 + spread, abs=0.01)
    assert interval(metric, [(1.0, 1.0)] * 30) == (1, 1)


def test_an_unknown_metric_is_named():
    with pytest.raises(Invalid, match="`meteor` is not known; it is one of bleu_4, exact_match, rouge_l"):
        check_metrics(["rouge_l", "meteor"])
