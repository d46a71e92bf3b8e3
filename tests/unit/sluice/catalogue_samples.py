"""Invented rows laid out as the publishers of datasets lay theirs out, and what should become of them.

Names of files and columns are the publishers', as their cards and the loaders of other projects tell them; every text
is made up here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from catalogue_files import delimited


class Sample(NamedTuple):
    """The files of a copy, the split that is asked for, what comes out, and how many rows are left out."""

    files: dict[str, Any]
    rows: list[dict[str, Any]]
    split: str = ""
    left_out: int = 0


def chat(user: str, assistant: str, system: str = "", **more: Any) -> dict[str, Any]:
    first = [{"role": "system", "content": system}] if system else []
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": first + turns, **more}


PART = "00000-of-00001"
ABCD = {"A": "4", "B": "6", "C": "7", "D": "9"}
LINES = "A. 4\nB. 6\nC. 7\nD. 9"
FOUR = list(ABCD.values())
ALPACA = {"instruction": "Add up.", "input": "2 and 3", "output": "5"}
ALPACA_BARE = {"instruction": "Say hello.", "input": "", "output": "Hello."}
ALPACA_OUT = [chat("Add up.\n2 and 3", "5"), chat("Say hello.", "Hello.")]
SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
SHAREGPT_OUT = [chat("Why?", "So.")]
QUESTION_ZH = {"question": "哪个是质数？", **ABCD, "answer": "C"}
ANSWER_ZH = [chat(f"哪个是质数？\n{LINES}\n答案：", "C")]
SQUAD_ZH = {
    "version": "v1.0",
    "data": [
        {
            "title": "河",
            "id": "D1",
            "paragraphs": [
                {
                    "id": "P1",
                    "context": "河流过城。",
                    "qas": [
                        {"id": "Q1", "question": "什么流过城？", "answers": [{"text": "河", "answer_start": 0}]},
                        {"id": "Q2", "question": "河流过什么？", "answers": [{"text": "城", "answer_start": 3}]},
                    ],
                }
            ],
        }
    ],
}
SQUAD_ZH_OUT = [chat("河流过城。\n\n什么流过城？", "河"), chat("河流过城。\n\n河流过什么？", "城")]
IMAGE = {"bytes": b"\x89PNG", "path": "1.png"}
REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Cough.

 FINDINGS:

 The lungs are clear.  No effusion.

 IMPRESSION:

 Nothing acute.
"""
REPORT_ONLY = " FINAL REPORT\n CHEST RADIOGRAPH\n\n IMPRESSION:  Unchanged.\n"
IMPRESSION = "Write the impression of these findings of a chest X-ray."
DESCRIBE = "Describe the image."
DIALOGUE = "\n\nHuman: Is it late?\n\nAssistant: A little.\n\nHuman: How late?\n\nAssistant: "
AUDIO_SET = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
-a1B2c3D4e5, 30.000, 40.000, "/m/09x0r,/t/dd00088"
f6G7h8I9j0k, 0.000, 10.000, "/m/04rlf"
"""
CLAIM = {"document": "The bridge was closed on Monday.", "summary": "The bridge is closed.", "id": "1"}

KNOWLEDGE = {
    "c-eval": Sample(
        {
            "val/computer_network_val.csv": [{"id": "0", **QUESTION_ZH}],
            "test/computer_network_test.csv": [{"id": "0", "question": "哪个？", **ABCD}],
        },
        ANSWER_ZH,
    ),
    "cmmlu": Sample(
        {"test/agronomy.csv": [{"": "0", "Question": "哪个是质数？", **ABCD, "Answer": "C"}]},
        ANSWER_ZH,
    ),
    "mmlu": Sample(
        {f"all/test-{PART}.parquet": [{"question": "Which is a prime?", "subject": "s", "choices": FOUR, "answer": 2}]},
        [chat(f"Which is a prime?\n{LINES}", "C")],
        "test",
    ),
    "mmlu-pro": Sample(
        {
            f"data/test-{PART}.parquet": [
                {
                    "question_id": 70,
                    "question": "Which is a prime?",
                    "options": [*FOUR, "10"],
                    "answer": "C",
                    "answer_index": 2,
                    "cot_content": "",
                    "category": "math",
                    "src": "made up",
                }
            ]
        },
        [chat(f"Which is a prime?\n{LINES}\nE. 10", "C")],
    ),
    "arc-challenge": Sample(
        {
            f"ARC-Challenge/train-{PART}.parquet": [
                {
                    "id": "1",
                    "question": "What melts?",
                    "choices": {"text": ["stone", "ice", "wood"], "label": ["A", "B", "C"]},
                    "answerKey": "B",
                },
                {
                    "id": "2",
                    "question": "What burns?",
                    "choices": {"text": ["stone", "ice", "wood"], "label": ["1", "2", "3"]},
                    "answerKey": "3",
                },
            ]
        },
        [chat("What melts?\nA. stone\nB. ice\nC. wood", "B"), chat("What burns?\nA. stone\nB. ice\nC. wood", "C")],
    ),
    "openbookqa": Sample(
        {
            f"main/train-{PART}.parquet": [
                {
                    "id": "7-1",
                    "question_stem": "Ice is",
                    "choices": {"text": ["warm", "cold"], "label": ["A", "B"]},
                    "answerKey": "B",
                }
            ]
        },
        [chat("Ice is\nA. warm\nB. cold", "B")],
    ),
    "sciq": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "question": "What melts in the sun?",  # 33 letters with the support: turned by one
                    "distractor3": "iron",
                    "distractor1": "stone",
                    "distractor2": "wood",
                    "correct_answer": "ice",
                    "support": "Ice melts.",
                }
            ]
        },
        [chat("Ice melts.\nWhat melts in the sun?\nA. stone\nB. wood\nC. iron\nD. ice", "D")],
    ),
    "commonsense-qa": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "id": "1",
                    "question": "Where is a shelf?",
                    "question_concept": "shelf",
                    "choices": {"label": ["A", "B"], "text": ["library", "sea"]},
                    "answerKey": "A",
                },
                {
                    "id": "2",
                    "question": "Hidden?",
                    "question_concept": "x",
                    "choices": {"label": ["A", "B"], "text": ["yes", "no"]},
                    "answerKey": "",
                },
            ]
        },
        [chat("Where is a shelf?\nA. library\nB. sea", "A")],
        left_out=1,
    ),
    "winogrande": Sample(
        {
            f"winogrande_xl/train-{PART}.parquet": [
                {"sentence": "Ann thanked Eve, as _ had helped.", "option1": "Ann", "option2": "Eve", "answer": "2"}
            ]
        },
        [chat("Ann thanked Eve, as _ had helped.\nA. Ann\nB. Eve", "B")],
    ),
    "piqa": Sample(
        {
            f"plain_text/train-{PART}.parquet": [
                {"goal": "To open a jar,", "sol1": "turn the lid", "sol2": "cool the lid", "label": 0}
            ]
        },
        [chat("To open a jar,\nA. turn the lid\nB. cool the lid", "A")],
    ),
    "social-i-qa": Sample(
        {
            f"default/train-{PART}.parquet": [
                {
                    "context": "Kim won.",
                    "question": "How does Kim feel?",
                    "answerA": "sad",
                    "answerB": "glad",
                    "answerC": "cold",
                    "label": "2",
                }
            ]
        },
        [chat("Kim won.\nHow does Kim feel?\nA. sad\nB. glad\nC. cold", "B")],
    ),
    "truthful-qa": Sample(
        {
            f"multiple_choice/validation-{PART}.parquet": [
                {
                    "question": "Do frogs cause warts?",  # 21 letters, three options: not turned round
                    "mc1_targets": {"choices": ["No", "Yes", "On Mondays"], "labels": [1, 0, 0]},
                    "mc2_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
                }
            ]
        },
        [chat("Do frogs cause warts?\nA. No\nB. Yes\nC. On Mondays", "A")],
        "multiple-choice",
    ),
    "race": Sample(
        {
            "validation/high.jsonl": [
                {"article": "Ann ran.", "question": "Who ran?", "options": ["Ann", "Eve", "Kim", "Sue"], "answer": "A"}
            ]
        },
        [chat("Ann ran.\n\nWho ran?\nA. Ann\nB. Eve\nC. Kim\nD. Sue", "A")],
        "validation",
    ),
    "gpqa": Sample(
        {
            "gpqa_main.csv": [
                {
                    "Pre-Revision Question": "?",
                    "Question": "Which, then?",  # 12 letters: all the way round
                    "Correct Answer": "this",
                    "Incorrect Answer 1": "that",
                    "Incorrect Answer 2": "those",
                    "Incorrect Answer 3": "these\n",
                    "Explanation": "why",
                }
            ]
        },
        [chat("Which, then?\nA. this\nB. that\nC. those\nD. these", "A")],
    ),
    "trivia-qa": Sample(
        {
            f"rc.nocontext/train-{PART}.parquet": [
                {
                    "question": "Who wrote it?",
                    "question_id": "1",
                    "answer": {"aliases": ["Ann B.", "A. B."], "normalized_aliases": ["ann b"], "value": "Ann B."},
                }
            ]
        },
        [chat("Who wrote it?", "Ann B.")],
    ),
    "nq-open": Sample(
        {f"nq_open/train-{PART}.parquet": [{"question": "who wrote it", "answer": ["Ann", "Ann B."]}]},
        [chat("who wrote it?", "Ann")],
    ),
    "cmrc2018": Sample({"cmrc2018_train.json": SQUAD_ZH}, SQUAD_ZH_OUT),
    "drcd": Sample({"DRCD_training.json": SQUAD_ZH}, SQUAD_ZH_OUT),
}
REASONING = {
    "gsm8k": Sample(
        {
            f"main/train-{PART}.parquet": [
                {"question": "2 and 3 apples?", "answer": "2 + 3 = <<2+3=5>>5 apples.\n#### 5"}
            ]
        },
        [chat("2 and 3 apples?", "2 + 3 = 5 apples.\n#### 5")],
    ),
    "gsm8k-final": Sample(
        {f"main/test-{PART}.parquet": [{"question": "How many?", "answer": "Many: <<2*600=1200>>1,200.\n#### 1,200"}]},
        [chat("How many?", "1200")],
        "test",
    ),
    "mgsm-zh": Sample(
        {"mgsm_zh.tsv": '小明有"两"个苹果，又买三个，共几个？\t5\n'},
        [chat('小明有"两"个苹果，又买三个，共几个？', "5")],
    ),
    "asdiv": Sample(
        {
            f"asdiv/validation-{PART}.parquet": [
                {"body": "Ann has 2 pens.", "question": "And with 3?", "answer": "5 (pens)", "formula": "2+3=5"}
            ]
        },
        [chat("Ann has 2 pens. And with 3?", "5")],
    ),
    "mathqa": Sample(
        {"train.json": [{"Problem": "2 + 3 ?", "options": "a ) 4 , b ) 5", "correct": "b", "category": "general"}]},
        [chat("2 + 3 ?\na ) 4 , b ) 5", "b")],
    ),
    "bbh": Sample(
        {"bbh/navigate.json": {"canary": "x", "examples": [{"input": "Back again?", "target": "Yes"}]}},
        [chat("Back again?", "Yes")],
    ),
    "math-instruct": Sample(
        {"MathInstruct.json": [{"source": "x.json", "instruction": "2 + 3?", "output": "5"}]}, [chat("2 + 3?", "5")]
    ),
}
INSTRUCTION = {
    "alpaca": Sample({"alpaca_data.json": [ALPACA, ALPACA_BARE]}, ALPACA_OUT),
    "alpaca-cleaned": Sample({"alpaca_data_cleaned.json": [ALPACA, ALPACA_BARE]}, ALPACA_OUT),
    "alpaca-gpt4-zh": Sample({"alpaca_gpt4_data_zh.json": [ALPACA, ALPACA_BARE]}, ALPACA_OUT),
    "dolly-15k": Sample(
        {
            "databricks-dolly-15k.jsonl": [
                {"instruction": "When?", "context": "It was in May.", "response": "May.", "category": "closed_qa"},
                {"instruction": "Why?", "context": "", "response": "So.", "category": "open_qa"},
            ]
        },
        [chat("It was in May.\n\nWhen?", "May."), chat("Why?", "So.")],
    ),
    "open-orca": Sample(
        {
            "1M-GPT4-Augmented.parquet": [
                {"id": "niv.1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."},
                {"id": "niv.2", "system_prompt": "", "question": "Why?", "response": "So."},
            ]
        },
        [chat("Why?", "So.", "Be brief."), chat("Why?", "So.")],
    ),
    "slim-orca": Sample(
        {
            "oo-labeled_correct.gpt4.sharegpt.jsonl": [
                {"conversations": [{"from": "system", "value": "Be brief.", "weight": None}, *SHAREGPT]}
            ]
        },
        [chat("Why?", "So.", "Be brief.")],
    ),
    "belle-0-5m": Sample(
        {"Belle_open_source_0.5M.json": '{"instruction": "Add up.\\n2 and 3", "input": "", "output": "5"}\n'},
        [chat("Add up.\n2 and 3", "5")],
    ),
    "firefly-1-1m": Sample(
        {"firefly-train-1.1M.jsonl": [{"kind": "NLI", "input": "为什么？", "target": "因为。"}]},
        [chat("为什么？", "因为。")],
    ),
    "coig-cqia": Sample(
        {"zhihu/zhihu_score9.0-10_clean_v10.jsonl": [{**ALPACA, "task_type": {"major": ["问答"]}, "domain": ["通用"]}]},
        ALPACA_OUT[:1],
    ),
    "evol-instruct-v2": Sample(
        {"WizardLM_evol_instruct_V2_143k.json": [{"idx": "1", "conversations": SHAREGPT}]}, SHAREGPT_OUT
    ),
    "aya-dataset": Sample(
        {f"data/train-{PART}.parquet": [{"inputs": "Why?", "targets": "So.", "language": "English", "user_id": "x"}]},
        [chat("Why?", "So.")],
    ),
    "long-alpaca-12k": Sample(
        {"LongAlpaca-12k.json": [{"instruction": "Long text. Why?", "output": "Answer: So.", "input": "", "file": ""}]},
        [chat("Long text. Why?", "So.")],
    ),
    "zhihu-kol": Sample(
        {
            f"data/train-{PART}.parquet": [
                {"INSTRUCTION": "为什么？", "RESPONSE": "因为。", "SOURCE": "x", "METADATA": "{}"}
            ]
        },
        [chat("为什么？", "因为。")],
    ),
    "advertise-gen": Sample(
        {"train.json": '{"content": "类型#裤*颜色#蓝", "summary": "一条蓝裤。"}\n'},
        [chat("类型#裤*颜色#蓝", "一条蓝裤。")],
    ),
    "ultrachat-200k": Sample(
        {
            f"data/train_sft-{PART}.parquet": [
                {
                    "prompt": "Why?",
                    "prompt_id": "x",
                    "messages": [{"content": "Why?", "role": "user"}, {"content": "So.", "role": "assistant"}],
                }
            ]
        },
        [chat("Why?", "So.")],
    ),
    "lmsys-chat-1m": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "conversation_id": "x",
                    "model": "m",
                    "conversation": [
                        {"content": "Why?", "role": "user"},
                        {"content": "So.", "role": "assistant"},
                        {"content": "Unanswered", "role": "user"},
                    ],
                    "turn": 2,
                    "language": "English",
                }
            ]
        },
        [chat("Why?", "So.")],
    ),
    "disc-law-sft": Sample(
        {"DISC-Law-SFT-Pair.jsonl": [{"id": "1", "input": "问", "output": "答"}]}, [chat("问", "答")]
    ),
    "xsum": Sample(
        {f"default/train-{PART}.parquet": [CLAIM]},
        [chat("Summarize this.\n\nThe bridge was closed on Monday.", "The bridge is closed.")],
    ),
    "finance-iq": Sample(
        {"data/test/税务师.csv": delimited([{"": "0", "Question": "哪个是质数？", **ABCD, "Answer": "C"}]).decode()},
        ANSWER_ZH,
    ),
}
MEDICAL = {
    "medmcqa": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "id": "x",
                    "question": "Which?",
                    "opa": "4",
                    "opb": "6",
                    "opc": "7",
                    "opd": "9",
                    "cop": 2,
                    "exp": None,
                },
                {
                    "id": "y",
                    "question": "Hidden?",
                    "opa": "4",
                    "opb": "6",
                    "opc": "7",
                    "opd": "9",
                    "cop": -1,
                    "exp": "",
                },
            ]
        },
        [chat(f"Which?\n{LINES}", "C")],
        left_out=1,
    ),
    "pubmed-qa": Sample(
        {
            f"pqa_labeled/train-{PART}.parquet": [
                {
                    "pubid": 1,
                    "question": "Does it help?",
                    "context": {"contexts": ["It was tried.", "It helped."], "labels": ["METHODS", "RESULTS"]},
                    "long_answer": "It does.",
                    "final_decision": "yes",
                }
            ]
        },
        [chat("It was tried.\nIt helped.\n\nDoes it help?", "yes")],
    ),
    "cmb": Sample(
        {
            "CMB-Exam/CMB-val/CMB-val-merge.json": [
                {"exam_type": "x", "question": "哪些？", "answer": "AC", "option": {**ABCD, "E": ""}, "explanation": ""}
            ]
        },
        [chat(f"哪些？\n{LINES}", "AC")],
        "validation",
    ),
    "mimic-cxr": Sample(
        {"files/p10/p10000032/s50414267.txt": REPORT, "files/p10/p10000032/s50414268.txt": REPORT_ONLY},
        [chat("The lungs are clear.  No effusion.", "Nothing acute.", IMPRESSION)],
        left_out=1,
    ),
    "path-vqa": Sample(
        {f"data/train-{PART}.parquet": [{"image": IMAGE, "question": "what is shown?", "answer": "a cell"}]},
        [chat("what is shown?", "a cell", images=["1.png"])],
    ),
}
PREFERENCE = {
    "hh-rlhf-helpful": Sample(
        {"helpful-base/train.jsonl.gz": [{"chosen": DIALOGUE + "Ten\nto nine.", "rejected": DIALOGUE + "No idea."}]},
        [{"prompt": DIALOGUE.strip(), "chosen": "Ten\nto nine.", "rejected": "No idea."}],
    ),
    "ultrafeedback-binarized": Sample(
        {
            f"data/train_prefs-{PART}.parquet": [
                {
                    "prompt": "Why?",
                    "prompt_id": "x",
                    "chosen": [{"content": "Why?", "role": "user"}, {"content": "So.", "role": "assistant"}],
                    "rejected": [{"content": "Why?", "role": "user"}, {"content": "No.", "role": "assistant"}],
                    "score_chosen": 8.0,
                    "score_rejected": 3.0,
                }
            ]
        },
        [{"prompt": "Why?", "chosen": "So.", "rejected": "No."}],
    ),
    "orca-dpo-pairs": Sample(
        {"orca_rlhf.jsonl": [{"system": "", "question": "Why?", "chosen": "So.", "rejected": "No."}]},
        [{"prompt": "Why?", "chosen": "So.", "rejected": "No."}],
    ),
    "orpo-dpo-mix-40k": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "source": "x",
                    "chosen": [{"content": "Why?", "role": "user"}, {"content": "So.", "role": "assistant"}],
                    "rejected": [{"content": "Why?", "role": "user"}, {"content": "No.", "role": "assistant"}],
                }
            ]
        },
        [
            {
                "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
                "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
            }
        ],
    ),
    "dpo-en-zh-20k": Sample(
        {
            "dpo_zh.json": [
                {
                    "conversations": [{"from": "human", "value": "为什么？"}],
                    "chosen": {"from": "gpt", "value": "因为。"},
                    "rejected": {"from": "gpt", "value": "不。"},
                }
            ]
        },
        [{"prompt": [{"role": "user", "content": "为什么？"}], "chosen": "因为。", "rejected": "不。"}],
        "zh",
    ),
    "zhihu-rlhf-3k": Sample(
        {"zhihu_3k_rlhf.tsv": [{"prompt": "为什么？", "chosen": "因为，\n就是。", "rejected": "不。"}]},
        [{"prompt": "为什么？", "chosen": "因为，\n就是。", "rejected": "不。"}],
    ),
    "ultrafeedback-kto": Sample(
        {
            f"data/train-{PART}.parquet": [
                {"prompt": "Why?", "completion": "So.", "label": True},
                {"prompt": "Why?", "completion": "No.", "label": False},
            ]
        },
        [
            {"prompt": "Why?", "completion": "So.", "label": True},
            {"prompt": "Why?", "completion": "No.", "label": False},
        ],
    ),
}
TRIPLET = {"anchor": "A man eats.", "positive": "Someone eats.", "negative": "Nobody eats."}
TRIPLET_OUT = {"query": "A man eats.", "positive": "Someone eats.", "negatives": ["Nobody eats."]}
PAIRS = {
    "all-nli": Sample({f"triplet/train-{PART}.parquet": [TRIPLET]}, [TRIPLET_OUT]),
    "nli-for-simcse": Sample({f"triplet/train-{PART}.parquet": [TRIPLET]}, [TRIPLET_OUT]),
    "afqmc": Sample(
        {
            "afqmc_public/train.json": '{"sentence1": "怎么还款", "sentence2": "如何还款", "label": "1"}\n'
            '{"sentence1": "怎么还款", "sentence2": "怎么借款", "label": "0"}\n'
        },
        [{"query": "怎么还款", "positive": "如何还款"}],
    ),
    "tnews": Sample(
        {"tnews_public/train.json": '{"label": "102", "label_desc": "news_car", "sentence": "新车", "keywords": ""}\n'},
        [{"text": "新车", "label": "news_car"}],
    ),
    "cmnli": Sample(
        {
            "cmnli_public/train.json": '{"sentence1": "有雨", "sentence2": "没有雨", "label": "contradiction"}\n'
            '{"sentence1": "有雨", "sentence2": "有风", "label": "-"}\n'
        },
        [{"text": "有雨\n\n没有雨", "label": "contradiction"}],
        left_out=1,
    ),
    "cluewsc": Sample(
        {
            "cluewsc2020_public/train.json": '{"target": {"span2_index": 3, "span1_index": 0, "span1_text": "小明", '
            '"span2_text": "他"}, "idx": 0, "label": "true", "text": "小明说他来。"}\n'
        },
        [{"text": "小明说他来。\n他 = 小明", "label": "same"}],
    ),
}
PLAIN = {
    "redpajama-v2": Sample(
        {"sample/documents/2023-06/0000/en_head.json.gz": '{"url": "x", "raw_content": "A page."}\n'},
        [{"text": "A page."}],
    ),
    "refined-web": Sample(
        {f"data/train-{PART}.parquet": [{"content": "A page.", "url": "x", "dump": "y", "image_urls": [["z"]]}]},
        [{"text": "A page."}],
    ),
    "wikipedia-cn-filtered": Sample(
        {"wikipedia-cn-20230720-filtered.json": [{"completion": "河是水。", "source": "wikipedia.zh2307"}]},
        [{"text": "河是水。"}],
    ),
    "cosmopedia": Sample(
        {f"data/web_samples_v1/train-{PART}.parquet": [{"prompt": "Write.", "text": "Once.", "token_length": 2}]},
        [{"text": "Once."}],
    ),
    "the-stack": Sample(
        {f"data/python/train-{PART}.parquet": [{"content": "x = 1\n", "lang": "Python", "size": 6}]},
        [{"text": "x = 1"}],
    ),
    "humaneval": Sample(
        {
            f"openai_humaneval/test-{PART}.parquet": [
                {
                    "task_id": "HumanEval/0",
                    "prompt": "def one():\n",
                    "canonical_solution": "    return 1\n",
                    "test": "",
                    "entry_point": "one",
                }
            ]
        },
        [chat("def one():", "    return 1")],
    ),
    "mbpp": Sample(
        {
            f"full/train-{PART}.parquet": [
                {
                    "task_id": 1,
                    "text": "Return 1.",
                    "code": "def f(): return 1",
                    "test_list": ["assert f()", "assert 1"],
                }
            ]
        },
        [chat("Return 1.\nassert f()\nassert 1", "def f(): return 1")],
    ),
    "code-alpaca-20k": Sample({"code_alpaca_20k.json": [ALPACA, ALPACA_BARE]}, ALPACA_OUT),
    "sql-create-context": Sample(
        {"sql_create_context_v4.json": [{"question": "How many?", "context": "CREATE TABLE t", "answer": "SELECT 1"}]},
        [chat("CREATE TABLE t\n\nHow many?", "SELECT 1")],
    ),
    "synthetic-text-to-sql": Sample(
        {
            "synthetic_text_to_sql_train.snappy.parquet": [
                {"id": 1, "sql_prompt": "How many?", "sql_context": "CREATE TABLE t", "sql": "SELECT 1", "domain": "x"}
            ]
        },
        [chat("CREATE TABLE t\n\nHow many?", "SELECT 1")],
    ),
}
MEDIA = {
    "laion-400m": Sample(
        {
            f"data/part-{PART}.parquet": [
                {
                    "SAMPLE_ID": 1,
                    "URL": "http://x.test/1.jpg",
                    "TEXT": "a red door",
                    "NSFW": "UNLIKELY",
                    "similarity": 0.3,
                }
            ]
        },
        [chat(DESCRIBE, "a red door", images=["http://x.test/1.jpg"])],
    ),
    "llava-instruct-150k": Sample(
        {
            "llava_instruct_150k.json": [
                {
                    "id": "1",
                    "image": "000000000001.jpg",
                    "conversations": [
                        {"from": "human", "value": "<image>\nWhat is it?"},
                        {"from": "gpt", "value": "A door."},
                    ],
                }
            ]
        },
        [chat("<image>\nWhat is it?", "A door.", images=["000000000001.jpg"])],
    ),
    "llava-pretrain": Sample(
        {"blip_laion_cc_sbu_558k.json": [{"id": "1", "image": "00001/1.jpg", "conversations": SHAREGPT}]},
        [chat("Why?", "So.", images=["00001/1.jpg"])],
    ),
    "science-qa": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "image": IMAGE,
                    "question": "Which?",
                    "choices": ["ice", "fire"],
                    "answer": 1,
                    "hint": "",
                    "solution": "",
                },
                {
                    "image": None,
                    "question": "No image?",
                    "choices": ["a", "b"],
                    "answer": 0,
                    "hint": "",
                    "solution": "",
                },
            ]
        },
        [chat("Which?\nA. ice\nB. fire", "B", images=["1.png"])],
        left_out=1,
    ),
    "refcoco": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "captions": ["left door", "the door"],
                    "bbox": [1.0, 2.0, 30.5, 40.0],
                    "image_path": "coco/train2014/COCO_train2014_000000000001.jpg",
                }
            ]
        },
        [
            chat(
                "Where is this: left door? Answer with x1, y1, x2, y2 in pixels.",
                "1.0, 2.0, 30.5, 40.0",
                images=["coco/train2014/COCO_train2014_000000000001.jpg"],
            )
        ],
    ),
    "chart-qa": Sample(
        {
            f"data/train-{PART}.parquet": [
                {"image": IMAGE, "query": "How high?", "label": ["12"], "human_or_machine": 0}
            ]
        },
        [chat("How high?", "12", images=["1.png"])],
    ),
    "ocr-vqa": Sample(
        {
            f"data/train-{PART}.parquet": [
                {"image": IMAGE, "questions": ["Who wrote it?", "When?"], "answers": ["Ann", "1999"], "title": "T"}
            ]
        },
        [chat("Who wrote it?", "Ann", images=["1.png"])],
    ),
    "audio-set": Sample(
        {"balanced_train_segments.csv": AUDIO_SET},
        [
            {"labels": ["/m/09x0r", "/t/dd00088"], "audios": ["-a1B2c3D4e5"]},
            {"labels": ["/m/04rlf"], "audios": ["f6G7h8I9j0k"]},
        ],
        left_out=3,
    ),
}
LABELED = {
    "imdb": Sample(
        {f"plain_text/train-{PART}.parquet": [{"text": "Dull.", "label": 0}]}, [{"text": "Dull.", "label": "negative"}]
    ),
    "ag-news": Sample(
        {f"data/train-{PART}.parquet": [{"text": "A goal.", "label": 1}]}, [{"text": "A goal.", "label": "sports"}]
    ),
    "dbpedia-14": Sample(
        {f"dbpedia_14/train-{PART}.parquet": [{"label": 13, "title": "T", "content": " A novel."}]},
        [{"text": "T\n A novel.", "label": "written-work"}],
    ),
    "emotion": Sample(
        {f"split/train-{PART}.parquet": [{"text": "oh", "label": 5}]}, [{"text": "oh", "label": "surprise"}]
    ),
    "yelp-review-full": Sample(
        {f"yelp_review_full/train-{PART}.parquet": [{"label": 4, "text": "Good."}]}, [{"text": "Good.", "label": "5"}]
    ),
    "amazon-polarity": Sample(
        {f"amazon_polarity/train-{PART}.parquet": [{"label": 1, "title": "Good", "content": "It works."}]},
        [{"text": "Good\nIt works.", "label": "positive"}],
    ),
    "snli": Sample(
        {
            f"plain_text/train-{PART}.parquet": [
                {"premise": "A man eats.", "hypothesis": "Nobody eats.", "label": 2},
                {"premise": "A man eats.", "hypothesis": "He is glad.", "label": -1},
            ]
        },
        [{"text": "A man eats.\n\nNobody eats.", "label": "contradiction"}],
        left_out=1,
    ),
    "anli": Sample(
        {
            f"plain_text/train_r1-{PART}.parquet": [
                {"uid": "x", "premise": "A man eats.", "hypothesis": "He eats.", "label": 0, "reason": ""}
            ],
            f"plain_text/train_r2-{PART}.parquet": [
                {"uid": "y", "premise": "A man eats.", "hypothesis": "He sings.", "label": 1, "reason": ""}
            ],
        },
        [
            {"text": "A man eats.\n\nHe eats.", "label": "entailment"},
            {"text": "A man eats.\n\nHe sings.", "label": "neutral"},
        ],
    ),
    "go-emotions": Sample(
        {f"simplified/train-{PART}.parquet": [{"text": "thanks, wow", "labels": [15, 26], "id": "x"}]},
        [{"text": "thanks, wow", "labels": ["gratitude", "surprise"]}],
    ),
    "clinc150": Sample(
        {f"plus/train-{PART}.parquet": [{"text": "my card is blocked", "intent": 2}, {"text": "hm", "intent": 42}]},
        [{"text": "my card is blocked", "label": "account_blocked"}, {"text": "hm", "label": "oos"}],
    ),
    "banking77": Sample(
        {"banking_data/train.csv": [{"text": "Where is my card, please?", "category": "card_arrival"}]},
        [{"text": "Where is my card, please?", "label": "card_arrival"}],
    ),
    "civil-comments": Sample(
        {
            f"data/train-{PART}.parquet": [
                {"text": "Fine.", "toxicity": 0.0, "insult": 0.0},
                {"text": "Hm.", "toxicity": 0.4999, "insult": 0.0},
                {"text": "Bad.", "toxicity": 0.5, "insult": 0.5},
                {"text": "Worse.", "toxicity": 1.0, "insult": 1.0},
            ]
        },
        [
            {"text": "Fine.", "label": "civil"},
            {"text": "Hm.", "label": "civil"},
            {"text": "Bad.", "label": "toxic"},
            {"text": "Worse.", "label": "toxic"},
        ],
    ),
    "cail2018": Sample(
        {
            f"data/exercise_contest_train-{PART}.parquet": [
                {"fact": "他拿了车。", "accusation": ["盗窃"], "criminals": ["某"]}
            ]
        },
        [{"text": "他拿了车。", "labels": ["盗窃"]}],
    ),
    "conll2003": Sample(
        {
            f"conll2003/train-{PART}.parquet": [
                {"id": "0", "tokens": ["Ann", "left", "Rome"], "pos_tags": [22, 38, 22], "ner_tags": [1, 0, 5]},
                {"id": "1", "tokens": ["One", "lost"], "pos_tags": [22], "ner_tags": [1]},
            ]
        },
        [{"tokens": ["Ann", "left", "Rome"], "tags": ["B-PER", "O", "B-LOC"]}],
        left_out=1,
    ),
    "ncbi-disease": Sample(
        {
            f"ncbi_disease/train-{PART}.parquet": [
                {"id": "0", "tokens": ["colon", "cancer", "."], "ner_tags": [1, 2, 0]}
            ]
        },
        [{"tokens": ["colon", "cancer", "."], "tags": ["B-Disease", "I-Disease", "O"]}],
    ),
    "cifar-10": Sample(
        {f"plain_text/train-{PART}.parquet": [{"img": IMAGE, "label": 3}]}, [{"label": "cat", "images": ["1.png"]}]
    ),
    "mnist": Sample(
        {f"mnist/train-{PART}.parquet": [{"image": IMAGE, "label": 7}]}, [{"label": "7", "images": ["1.png"]}]
    ),
}
SQUAD = {
    "id": "1",
    "title": "T",
    "context": "Ann ran.",
    "question": "Who ran?",
    "answers": {"text": ["Ann"], "answer_start": [0]},
}
ENDINGS = {
    "ind": 1,
    "activity_label": "Cooking",
    "ctx": "A man cuts bread. He",
    "endings": ["eats", "flies"],
    "label": "0",
}
RATIONALE = {"question": "2 + 3?", "options": ["A)4", "B)5"], "rationale": "It is 5.", "correct": "B"}
BOOLQ = {"question": "is ice cold", "passage": "Ice is cold.", "answer": True, "title": "Ice"}
SUMMARIZE = "Summarize this.\n\n"
BILL = {"text": "It is enacted.", "summary": "Enacts.", "title": "T"}
MORE = {
    "hellaswag": Sample(
        {f"data/train-{PART}.parquet": [ENDINGS]}, [chat("A man cuts bread. He\nA. eats\nB. flies", "A")]
    ),
    "logiqa": Sample(
        {
            f"logiqa/train-{PART}.parquet": [
                {"label": "b", "context": "All ran.", "question": "Who?", "options": ["none", "all", "Ann", "Eve"]}
            ]
        },
        [chat("All ran.\n\nWho?\nA. none\nB. all\nC. Ann\nD. Eve", "B")],
    ),
    "belebele": Sample(
        {
            "data/eng_Latn.jsonl": [
                {
                    "flores_passage": "Ann ran.",
                    "question": "Who ran?",
                    "mc_answer1": "Ann",
                    "mc_answer2": "Eve",
                    "mc_answer3": "Kim",
                    "mc_answer4": "Sue",
                    "correct_answer_num": "1",
                    "dialect": "eng_Latn",
                }
            ]
        },
        [chat("Ann ran.\n\nWho ran?\nA. Ann\nB. Eve\nC. Kim\nD. Sue", "A")],
    ),
    "boolq": Sample({f"data/train-{PART}.parquet": [BOOLQ]}, [chat("Ice is cold.\n\nis ice cold?", "yes")]),
    "squad": Sample({f"plain_text/train-{PART}.parquet": [SQUAD]}, [chat("Ann ran.\n\nWho ran?", "Ann")]),
    "hotpot-qa": Sample(
        {f"distractor/train-{PART}.parquet": [{"id": "1", "question": "Who ran?", "answer": "Ann", "level": "hard"}]},
        [chat("Who ran?", "Ann")],
    ),
    "drop": Sample(
        {
            f"data/train-{PART}.parquet": [
                {
                    "section_id": "s",
                    "passage": "It was 3 to 1.",
                    "question": "By how many?",
                    "answers_spans": {"spans": ["2"], "types": ["number"]},
                }
            ]
        },
        [chat("It was 3 to 1.\n\nBy how many?", "2")],
    ),
    "aqua-rat": Sample(
        {f"raw/train-{PART}.parquet": [RATIONALE]}, [chat("2 + 3?\nA)4\nB)5", "It is 5.\nThe answer is B.")]
    ),
    "cnn-dailymail": Sample(
        {f"3.0.0/train-{PART}.parquet": [{"article": "The bridge closed.", "highlights": "It closed.", "id": "x"}]},
        [chat(SUMMARIZE + "The bridge closed.", "It closed.")],
    ),
    "samsum": Sample(
        {"train.json": [{"id": "1", "summary": "Ann comes.", "dialogue": "Ann: I come.\r\nEve: Good."}]},
        [chat(SUMMARIZE + "Ann: I come.\r\nEve: Good.", "Ann comes.")],
    ),
    "billsum": Sample({f"data/train-{PART}.parquet": [BILL]}, [chat(SUMMARIZE + "It is enacted.", "Enacts.")]),
    "opus-100-en-zh": Sample(
        {f"en-zh/train-{PART}.parquet": [{"translation": {"en": "Good.", "zh": "好。"}}]},
        [chat("Translate into Chinese.\n\nGood.", "好。")],
    ),
    "un-pc-en-zh": Sample(
        {f"en-zh/train-{PART}.parquet": [{"translation": {"en": "Good.", "zh": "好。"}}]},
        [chat("Translate into Chinese.\n\nGood.", "好。")],
    ),
    "spider": Sample(
        {
            f"spider/train-{PART}.parquet": [
                {"db_id": "shop", "query": "SELECT 1", "question": "One?", "query_toks": ["x"]}
            ]
        },
        [chat("Database: shop\n\nOne?", "SELECT 1")],
    ),
    "code-search-net": Sample(
        {
            f"python/train-{PART}.parquet": [
                {"func_name": "f", "func_documentation_string": "Gives 1.", "func_code_string": "def f(): return 1"}
            ]
        },
        [{"query": "Gives 1.", "positive": "def f(): return 1"}],
    ),
    "pg19": Sample({"train/10.txt": "A book.\n\nIts end.\n"}, [{"text": "A book.\n\nIts end."}]),
}
CAPTIONS = {
    "info": {"year": 2017},
    "images": [{"id": 139, "file_name": "000000000139.jpg"}],
    "annotations": [
        {"image_id": 139, "id": 1, "caption": "A room."},
        {"image_id": 139, "id": 2, "caption": "A room with a table.\n"},
    ],
    "licenses": [],
}
O1 = {"Question": "Why?", "Complex_CoT": "Let me see.", "Response": "So."}
PASSAGES = {
    "query_id": "q",
    "query": "什么？",
    "positive_passages": [{"docid": "1", "text": "这个。"}],
    "negative_passages": [{"docid": "2", "text": "那个。"}, {"docid": "3", "text": "别的。"}],
}
PASSAGES_OUT = {"query": "什么？", "positive": "这个。", "negatives": ["那个。", "别的。"]}


def captioned(folder: str) -> list[dict[str, Any]]:
    images = [f"{folder}/000000000139.jpg"]
    return [chat(DESCRIBE, "A room.", images=images), chat(DESCRIBE, "A room with a table.", images=images)]


READ_BY_OTHERS = {
    "coco": Sample({"annotations/captions_train2017.json": CAPTIONS}, captioned("train2017")),
    "coyo-700m": Sample(
        {f"data/part-{PART}.parquet": [{"id": 1, "url": "http://x.test/1.jpg", "text": "a red door", "width": 9}]},
        [chat(DESCRIBE, "a red door", images=["http://x.test/1.jpg"])],
    ),
    "medical-o1-zh": Sample({"medical_o1_sft_Chinese.json": [O1]}, [chat("Why?", "Let me see.\n\nSo.")]),
    "medical-o1-en": Sample({"medical_o1_sft.json": [O1]}, [chat("Why?", "Let me see.\n\nSo.")]),
    "nih-chest-xray14": Sample(
        {"Data_Entry_2017.csv": "Image Index,Finding Labels,Age\n1_000.png,Mass|Effusion,58\n2.png,No Finding,9\n"},
        [
            {"labels": ["Mass", "Effusion"], "images": ["images/1_000.png"]},
            {"labels": ["No Finding"], "images": ["images/2.png"]},
        ],
    ),
    "iu-xray": Sample(
        {
            "indiana_reports.csv": [
                {"uid": 1, "MeSH": "normal", "findings": "Clear,\nno effusion.", "impression": "Normal."},
                {"uid": 2, "MeSH": "normal", "findings": "", "impression": "Normal."},
            ]
        },
        [chat("Clear,\nno effusion.", "Normal.", IMPRESSION)],
        left_out=1,
    ),
    "waimai-10k": Sample(
        {"datasets/waimai_10k/waimai_10k.csv": [{"label": 1, "review": "很快，好吃"}]},
        [{"text": "很快，好吃", "label": "positive"}],
    ),
    "chn-senti-hotel": Sample(
        {"ChnSentiCorp_htl_all.csv": [{"label": 0, "review": "房间小"}]}, [{"text": "房间小", "label": "negative"}]
    ),
    "esc-50": Sample(
        {"meta/esc50.csv": [{"filename": "1-1-A-0.wav", "fold": 1, "target": 0, "category": "dog", "take": "A"}]},
        [{"label": "dog", "audios": ["audio/1-1-A-0.wav"]}],
    ),
    "urbansound8k": Sample(
        {"metadata/UrbanSound8K.csv": [{"slice_file_name": "1-3-0-0.wav", "fsID": 1, "fold": 5, "class": "dog_bark"}]},
        [{"label": "dog_bark", "audios": ["audio/fold5/1-3-0-0.wav"]}],
    ),
    "msmarco-passage": Sample({"train.jsonl.gz": [PASSAGES]}, [PASSAGES_OUT]),
    "mldr-zh": Sample({"mldr-v1.0-zh/train.jsonl.gz": [PASSAGES]}, [PASSAGES_OUT]),
    "translation2019zh": Sample(
        {"translation2019zh/translation2019zh_train.json": '{"english": "Good.", "chinese": "好。"}\n'},
        [chat("Translate into Chinese.\n\nGood.", "好。")],
    ),
}
SAMPLES = {
    **READ_BY_OTHERS,
    **KNOWLEDGE,
    **REASONING,
    **INSTRUCTION,
    **MEDICAL,
    **PREFERENCE,
    **PAIRS,
    **PLAIN,
    **MEDIA,
    **LABELED,
    **MORE,
}
#: The same for entries that are published in more than one layout.
OTHERS = {
    "coco": Sample({"annotations/captions_val2017.json": CAPTIONS}, captioned("val2017"), "validation"),
    "c-eval": Sample({f"logic/val-{PART}.parquet": [{"id": 0, **QUESTION_ZH, "explanation": ""}]}, ANSWER_ZH),
    "cmmlu": Sample(
        {"elementary_chinese/cmmlu-test.parquet": [{"Question": "哪个是质数？", **ABCD, "Answer": "C"}]}, ANSWER_ZH
    ),
    "mmlu": Sample(
        {"data/x": "", "test/anatomy_test.csv": "Which is a prime?,4,6,7,9,C\n"},
        [chat(f"Which is a prime?\n{LINES}", "C")],
        "test",
    ),
    "truthful-qa": Sample(
        {
            f"generation/validation-{PART}.parquet": [
                {"question": "Do frogs cause warts?", "best_answer": "No", "type": "x"}
            ]
        },
        [chat("Do frogs cause warts?", "No")],
    ),
    "race": Sample(
        {
            f"all/train-{PART}.parquet": [
                {"example_id": "1", "article": "Ann ran.", "question": "Who?", "options": ["Ann", "Eve"], "answer": "A"}
            ]
        },
        [chat("Ann ran.\n\nWho?\nA. Ann\nB. Eve", "A")],
    ),
    "gsm8k": Sample(
        {"train.jsonl": [{"question": "2 and 3?", "answer": "<<2+3=5>>5\n#### 5"}]}, [chat("2 and 3?", "5\n#### 5")]
    ),
    "alpaca": Sample({f"data/train-{PART}.parquet": [{**ALPACA, "text": "x"}]}, ALPACA_OUT[:1]),
    "cmrc2018": Sample(
        {
            f"data/train-{PART}.parquet": [
                {"id": "1", "context": "河。", "question": "何？", "answers": SQUAD["answers"]}
            ]
        },
        [chat("河。\n\n何？", "Ann")],
    ),
    "afqmc": Sample(
        {f"afqmc/train-{PART}.parquet": [{"sentence1": "怎么还款", "sentence2": "如何还款", "label": 1, "idx": 0}]},
        [{"query": "怎么还款", "positive": "如何还款"}],
    ),
    "laion-400m": Sample(
        {
            "00000.tar": {
                "000000000.jpg": b"\xff",
                "000000000.json": '{"caption": "a red door"}',
                "000000000.txt": "a red door",
                "./more.1/000000001.jpg": b"\xff",
                "./more.1/000000001.json": "{}",
                "./more.1/000000002.jpg": b"\xff",
                "./more.1/000000002.txt": "a blue door",
            }
        },
        [
            chat(DESCRIBE, "a red door", images=["00000.tar/000000000.jpg"]),
            chat(DESCRIBE, "a blue door", images=["00000.tar/./more.1/000000002.jpg"]),
        ],
        left_out=1,
    ),
    "hellaswag": Sample(
        {"hellaswag_train.jsonl": [{**ENDINGS, "label": 0}]}, [chat("A man cuts bread. He\nA. eats\nB. flies", "A")]
    ),
    "winogrande": Sample(
        {
            "winogrande_1.1/train_xl.jsonl": [
                {"qID": "x", "sentence": "Ann thanked _.", "option1": "Ann", "option2": "Eve", "answer": "2"}
            ]
        },
        [chat("Ann thanked _.\nA. Ann\nB. Eve", "B")],
    ),
    "boolq": Sample({"train.jsonl": [BOOLQ]}, [chat("Ice is cold.\n\nis ice cold?", "yes")]),
    "squad": Sample({"train-v1.1.json": SQUAD_ZH}, SQUAD_ZH_OUT),
    "aqua-rat": Sample(
        {"train.json": '{"question": "2 + 3?", "options": ["A)4", "B)5"], "rationale": "It is 5.", "correct": "B"}\n'},
        [chat("2 + 3?\nA)4\nB)5", "It is 5.\nThe answer is B.")],
    ),
    "cail2018": Sample(
        {"exercise_contest/data_train.json": '{"fact": "他拿了车。", "meta": {"accusation": ["盗窃"]}}\n'},
        [{"text": "他拿了车。", "labels": ["盗窃"]}],
    ),
    "anli": Sample(
        {"anli_v1.0/R1/train.jsonl": [{"uid": "x", "context": "A man eats.", "hypothesis": "He eats.", "label": "e"}]},
        [{"text": "A man eats.\n\nHe eats.", "label": "entailment"}],
    ),
    "go-emotions": Sample(
        {"data/train.tsv": 'thanks, "wow\t15,26\teebbqej\n'},
        [{"text": 'thanks, "wow', "labels": ["gratitude", "surprise"]}],
    ),
    "code-search-net": Sample(
        {
            "python/final/jsonl/train/python_train_0.jsonl.gz": [
                {"repo": "a/b", "docstring": "Gives 1.", "code": "def f(): return 1"}
            ]
        },
        [{"query": "Gives 1.", "positive": "def f(): return 1"}],
    ),
    "spider": Sample(
        {
            "spider/train_spider.json": [
                {"db_id": "shop", "query": "SELECT 1", "question": "One?", "sql": {"limit": None}}
            ]
        },
        [chat("Database: shop\n\nOne?", "SELECT 1")],
    ),
    "billsum": Sample(
        {"us_train_data_final_OFFICIAL.jsonl": [{**BILL, "bill_id": "1"}]},
        [chat(SUMMARIZE + "It is enacted.", "Enacts.")],
    ),
}
