"""The parts of the long tier by name: which tests or figures each runs. No part takes longer than LIMIT_S."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

LIMIT_S = 600.0


@dataclass(frozen=True)
class Part:
    """Tests whose id ``pattern`` finds, or what ``python -m benchmarks`` measures with these options."""

    name: str
    pattern: str = ""
    measure: tuple[str, ...] = ()


#: Of a test that several patterns find, the first part has it.
PARTS = (
    Part("stores", r"unit/kit/test_store|conformance/test_blob_stores"),
    Part("rows", r"unit/rows/"),
    Part("interleavings", r"test_whoever_comes_first_there_is_one_winner"),
    Part("bus", r"faults/test_bus_faults"),
    Part("kills-attempt", r"test_a_process_of_an_attempt"),
    Part("kills-training", r"test_any_process_at_any_stage\[.*training"),
    Part("kills-evaluation", r"test_any_process_at_any_stage\[.*evaluation"),
    Part("kills-canary", r"test_any_process_at_any_stage\[.*canary"),
    Part("edges-commit", r"dies_at_a_state_edge\[.*_commit"),
    Part("edges-publish", r"dies_at_a_state_edge\[.*_(publish|mark)"),
    Part("edges-ack", r"dies_at_a_state_edge\[.*_ack"),
    Part("edges-own", r"dies_at_a_state_edge"),
    Part("edges-dataset", r"faults/test_dataset_"),
    Part("s3", r"integration/test_dataset_s3"),
    Part("engines", r"integration/test_vllm_"),
    Part("broker", r"test_the_broker_"),
    Part("events", r"test_every_event_comes_ten_times"),
    Part("restarts", r"test_all_are_killed_at_once"),
    Part("soak", r"faults/test_soak"),
    Part("ray", r"faults/test_ray"),
    Part("exports", r"recipes/test_exports"),
    Part("exports-served", r"e2e/test_exported_versions"),
    Part("vision", r"recipes/test_vision|about_images_goes_from_them"),
    Part("audio", r"recipes/test_audio|about_sounds_and_videos_goes_from_them"),
    Part("rewards", r"recipes/test_(policy|ppo)"),
    Part("minilm", r"recipes/test_minilm"),
    Part("rest", r"."),
    Part("figure-ready", measure=("--only", "ready_s")),
    Part("figure-memory", measure=("--only", "pss_mb")),
    Part("figure-lag", measure=("--only", "evaluation_lag_p95_ms")),
    Part("figure-rollback", measure=("--only", "rollback_ms")),
    Part("figure-training", measure=("--only", "train_ratio")),
    Part("figure-score", measure=("--only", "first_score_s")),
    Part("figure-ingest", measure=("--only", "ingest_vs_hf")),
    Part("figure-read", measure=("--only", "read_mb_s")),
    Part("figure-upload-memory", measure=("--only", "rss_ratio")),
    Part("figure-search", measure=("--only", "dataset_search_p95_ms_sqlite")),
    Part("figure-duplicates", measure=("--only", "near_recall")),
    Part("figure-trl", measure=("--only", "tokens_per_s_vs_trl", "--pairs", "5")),
    Part("figure-swift", measure=("--only", "tokens_per_s_vs_swift", "--pairs", "5")),
)


def of_each(tests: Iterable[str]) -> dict[str, list[str]]:
    """The ids of tests by the name of the part that has them; every test is in one."""
    found: dict[str, list[str]] = {part.name: [] for part in PARTS if part.pattern}
    for test in tests:
        found[next(part.name for part in PARTS if part.pattern and re.search(part.pattern, test))].append(test)
    return found
