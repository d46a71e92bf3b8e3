"""A Node.js client with nothing but the descriptor set talks to the suite: the contract is one for every language.

That it trains and watches too is shown where there is a whole suite, in tests/e2e/test_gate_and_canary.py.
"""

import json

from tests.integration.uploads import jsonl
from tests.node_client import run
from tests.suite import suite


def test_node_uploads_a_dataset_and_lists_it(node_client, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(jsonl(40, size=70_000))  # several chunks
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n")
    with suite(tmp_path / "suite", "registry", "dataset") as running:
        address = running.address("dataset")
        done = run(node_client, address, running.key, rows)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        name = "projects/default/datasets/from-node"
        assert told == {"dataset": name, "version": f"{name}/versions/1", "rows": 40, "datasets": [name]}
        again = run(node_client, address, running.key, rows)
        assert again.returncode == 1 and "exists; choose another id" in again.stderr
        refused = run(node_client, address, running.key, broken, "--dataset", "broken")
        assert refused.returncode == 1 and "row 1" in refused.stderr
        stranger = run(node_client, address, "sk-sluice-guessed", rows)
        assert stranger.returncode == 1 and "set SLUICE_API_KEY" in stranger.stderr
