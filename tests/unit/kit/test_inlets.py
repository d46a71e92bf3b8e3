"""Events of outside systems: what counts as one, and what it is known by."""

import json

import pytest

from kit.bus.cloud_events import Undecodable
from kit.bus.inlets import MAX_BYTES, read
from kit.bus.nats_server import permissions, sender_permissions

GOOD = {"specversion": "1.0", "id": "secret", "source": "//pacs", "type": "report", "data": {"findings": "胸片"}}
SUBJECT = "sluice.feed.v1.p.d.f"


def payload(**changes):
    return json.dumps({**GOOD, **changes}, ensure_ascii=False).encode()


def test_data_comes_as_it_was_written():
    event = read(SUBJECT, payload(traceparent="t"))
    assert (event.subject, event.traceparent) == (SUBJECT, "t")
    assert event.data.decode() == '{"findings": "胸片"}'


def test_it_is_known_by_where_it_was_sent_its_source_and_its_id():
    known = {
        read(subject, each).id
        for subject in (SUBJECT, f"{SUBJECT}2")
        for each in (payload(), payload(id="other"), payload(source="//crm"), payload(type="x", data={}))
    }
    assert len(known) == 6 and not any("secret" in each for each in known)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"secret",
        b"null",
        b"[" * 100_000,
        payload()[:-2] + b"\xff}",
        payload(specversion="0.3"),
        payload(id=""),
        payload(id=7),
        payload(source=""),
        json.dumps({key: value for key, value in GOOD.items() if key != "data"}).encode(),
        payload(data="x" * MAX_BYTES),
    ],
)
def test_anything_else_is_poison_and_not_repeated(wrong):
    with pytest.raises(Undecodable) as refused:
        read(SUBJECT, wrong)
    assert "secret" not in str(refused.value)


def test_only_who_takes_an_inlet_has_its_stream():
    taker, other = permissions("dataset", ["feed"], ["feed"]), permissions("trainer", [], ["feed"])
    create = "$JS.API.STREAM.CREATE.SLUICE_FEED"
    assert create in taker["publish"]["allow"] and create not in other["publish"]["allow"]
    assert sender_permissions("feeds", "feed")["publish"]["allow"] == ["sluice.feed.v1.>"]
