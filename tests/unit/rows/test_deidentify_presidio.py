"""Presidio behind the interface of our recognizers, in a process of its own: what it finds, and that it asks nobody."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit.rpc.errors import Invalid
from sluice.rows.deidentify import recognizers

#: Finds in each text that comes in; any look at the network ends the process.
SCRIPT = """
import json, re, sys
import polars as pl

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"asks the network: {event} {arguments}")

sys.addaudithook(refuse)
# As where nothing trains: spaCy and Presidio import both where they are, use neither, and take seconds to do so.
sys.modules["torch"] = sys.modules["transformers"] = None
from sluice.rows.deidentify.recognizers import RECOGNIZERS, recognizers
from sluice.rows.deidentify.recognizers.presidio import PIECE, presidio
from sluice.rows.deidentify.text import find

texts = json.load(sys.stdin)
found = find(pl.Series(["call 13812345678, my SSN is 536-90-4399"]), recognizers(["presidio"]))[0]
assert [span.kind for span in found] == ["CN_MOBILE", "US_SSN"], found  # the default ones look as well
for recognizer in (RECOGNIZERS["presidio"](), presidio("zh")):
    found = find(pl.Series(texts), [recognizer])
    again = find(pl.Series(texts), [recognizer])
    assert found == again
    print(json.dumps([[[span.kind, text[span.start : span.end]] for span in found.get(place, [])]
                      for place, text in enumerate(texts)]))
long = ("，" * (PIECE * 5 - 20) + " 4111111111111111 号。") * 52  # each a little nearer to the seam of two pieces
long = long.replace("，", "", 40) + "，4111111111111111"
cards = [(span.start, span.end) for span in find(pl.Series([long]), [recognizer])[0]]
assert len(long) > 1_000_000 and cards == [match.span() for match in re.finditer("4[0-9]{15}", long)]
"""
EXPECTED = {
    "card 4111 1111 1111 1111 ok": [["BANK_CARD", "4111 1111 1111 1111"]],
    "card 4111 1111 1111 1112 ok": [],
    "卡号4111111111111111。": [["BANK_CARD", "4111111111111111"]],
    "iban GB82 WEST 1234 5698 7654 32": [["IBAN_CODE", "GB82 WEST 1234 5698 7654 32"]],
    "iban GB83 WEST 1234 5698 7654 32": [],
    "My SSN is 536-90-4399.": [["US_SSN", "536-90-4399"]],
    "写信到zhang.san@example.com.cn。": [["EMAIL", "zhang.san@example.com.cn"]],
    "a@b.notatld": [],
    "see https://www.example.org/a?b=1 now": [["URL", "https://www.example.org/a?b=1"]],
    "从10.0.0.1登录": [["IP_ADDRESS", "10.0.0.1"]],
    "The transfer was pending at 10:30 and the fee is 1.5%, e.g. for a top-up.": [],
    "双肺纹理清晰，未见明显实变影": [],
}


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer") is None, reason="the extra `deid` is not installed")
def test_presidio_finds_by_pattern_and_asks_no_network(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(EXPECTED)),
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    english, chinese = (dict(zip(EXPECTED, json.loads(line), strict=True)) for line in ran.stdout.splitlines())
    assert english == EXPECTED
    assert chinese == EXPECTED
    assert list(tmp_path.iterdir()) == []  # nothing is cached, so nothing was fetched


def test_without_presidio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(Invalid, match=r"`presidio` needs the package `presidio_analyzer`.* extra `deid`"):
        recognizers(["presidio"])
