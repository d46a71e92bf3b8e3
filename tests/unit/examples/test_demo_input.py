"""What the demo refuses before it starts anything or empties the home of the demo before."""

from pathlib import Path

import pytest

from examples.demo import look_at
from kit.rpc.errors import Invalid


def test_files_that_are_not_there_or_are_no_model(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with pytest.raises(Invalid, match=r"no file `.*rows.jsonl`; give the path of a file with rows"):
        look_at(rows, None)
    rows.write_text("{}\n")
    look_at(rows, None)
    with pytest.raises(Invalid, match="no folder"):
        look_at(rows, tmp_path / "none")
    with pytest.raises(Invalid, match="has neither"):
        look_at(rows, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Invalid, match="save the weights"):
        look_at(rows, tmp_path)
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # no tensors, well said
    look_at(rows, tmp_path)
