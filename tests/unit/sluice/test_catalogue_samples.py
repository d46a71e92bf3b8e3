"""What becomes of invented rows that are laid out as the original's: the entries that say `verified: sample`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from catalogue_files import read_rows, write_files
from catalogue_samples import OTHERS, SAMPLES, Sample

from sluice.catalogue import entries, find, mirror
from sluice.catalogue.canonical import write
from sluice.rows import check_row

ALL = [*SAMPLES.items(), *OTHERS.items()]


@pytest.mark.parametrize(("id", "sample"), ALL, ids=[*SAMPLES, *(f"{id}-other" for id in OTHERS)])
def test_rows_laid_out_like_the_original_become_canonical(id: str, sample: Sample, tmp_path: Path):
    write_files(tmp_path / "copy", sample.files)
    entry = find(id)
    found = mirror.find(entry, tmp_path / "copy", sample.split)
    written = write(entry, found, tmp_path / "rows.zst")
    assert read_rows(tmp_path / "rows.zst") == sample.rows
    assert (written.rows, written.left_out) == (len(sample.rows), sample.left_out)
    if entry.task_type in ("sft", "pretrain"):  # what the suite has rules for now
        for row in sample.rows:
            check_row(msgspec.json.encode(row), entry.task_type)


def test_an_entry_says_sample_just_when_each_of_its_layouts_has_one(tmp_path: Path):
    tested: dict[str, list[int]] = {}
    for number, (id, sample) in enumerate(ALL):
        write_files(tmp_path / str(number), sample.files)
        found = mirror.find(find(id), tmp_path / str(number), sample.split)
        tested.setdefault(id, []).append(find(id).layouts.index(found.layout))
    claimed = {entry.id: entry.layouts for entry in entries().values() if entry.verified == "sample"}
    assert {id: sorted(places) for id, places in tested.items()} == {id: [*range(len(claimed[id]))] for id in claimed}
