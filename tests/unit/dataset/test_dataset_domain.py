"""What an upload may become and what a dataset may be called; no database."""

from datetime import UTC, datetime

import pytest

from kit.rpc.errors import Fault, Invalid, StateConflict
from services.dataset import domain
from services.dataset.checks import Outcome
from services.dataset.uploads import domain as uploads
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows import Violation

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PARENT = "projects/p/datasets/d"
STATES = [value for value in dataset.UploadState.values() if value]


def upload(**fields):
    return dataset.Upload(**{"name": f"{PARENT}/uploads/u", "file_name": "a.jsonl", "size_bytes": 10, **fields})


@pytest.mark.parametrize("old", STATES)
@pytest.mark.parametrize("new", STATES)
def test_an_upload_moves_as_its_table_says_and_refuses_in_one_sentence(old, new):
    moving = upload(state=old)
    if lifecycle.can(lifecycle.UPLOAD, old, new):
        uploads.enter(moving, new)
        assert moving.state == new
    else:
        with pytest.raises(StateConflict, match="open a new one"):
            uploads.enter(moving, new)
        assert moving.state == old


@pytest.mark.parametrize(
    ("state", "committed", "offset", "reason"),
    [
        (dataset.UPLOAD_STATE_OPEN, 0, 0, None),
        (dataset.UPLOAD_STATE_OPEN, 4, 4, None),
        (dataset.UPLOAD_STATE_OPEN, 4, 0, errors.ERROR_REASON_WRONG_OFFSET),
        (dataset.UPLOAD_STATE_OPEN, 4, 5, errors.ERROR_REASON_WRONG_OFFSET),
        (dataset.UPLOAD_STATE_VALIDATING, 4, 4, errors.ERROR_REASON_ILLEGAL_TRANSITION),
        (dataset.UPLOAD_STATE_COMMITTED, 10, 10, errors.ERROR_REASON_ILLEGAL_TRANSITION),
        (dataset.UPLOAD_STATE_EXPIRED, 0, 0, errors.ERROR_REASON_ILLEGAL_TRANSITION),
    ],
)
def test_where_a_chunk_may_start(state, committed, offset, reason):
    present = upload(state=state, committed_bytes=committed)
    if reason is None:
        uploads.check_open(present, offset)
        return
    with pytest.raises(StateConflict) as refused:
        uploads.check_open(present, offset)
    assert refused.value.reason == reason
    if reason == errors.ERROR_REASON_WRONG_OFFSET:
        assert refused.value.metadata == {"committed_bytes": str(committed)}


@pytest.mark.parametrize(("committed", "size", "fits"), [(0, 10, True), (4, 6, True), (4, 7, False), (10, 1, False)])
def test_no_more_bytes_than_were_announced(committed, size, fits):
    growing = upload(committed_bytes=committed)
    if fits:
        uploads.grow(growing, size)
        assert growing.committed_bytes == committed + size
    else:
        with pytest.raises(StateConflict) as refused:
            uploads.grow(growing, size)
        assert refused.value.reason == errors.ERROR_REASON_SIZE_MISMATCH and growing.committed_bytes == committed


def test_an_upload_is_complete_with_its_last_byte():
    uploads.check_complete(upload(committed_bytes=10))
    with pytest.raises(StateConflict, match="9 of 10 bytes"):
        uploads.check_complete(upload(committed_bytes=9))


@pytest.mark.parametrize("file_name", ["a.docx", "a.jsonl.bz2", "a", "a.pkl", "jsonl", "a.json.exe"])
def test_a_format_that_is_not_read_is_refused_before_a_byte_is_sent(file_name):
    request = dataset.CreateUploadRequest(parent=PARENT, file_name=file_name, size_bytes=1)
    with pytest.raises(Invalid, match="known format") as refused:
        uploads.new_upload(request, dataset.Dataset(), "me", NOW)
    assert refused.value.violations[0][0] == "file_name"


def test_an_upload_lives_for_a_week():
    request = dataset.CreateUploadRequest(parent=PARENT, file_name="a.jsonl", size_bytes=1)
    made = uploads.new_upload(request, dataset.Dataset(), "me", NOW)
    assert made.expire_time.ToDatetime(UTC) - NOW == uploads.UPLOAD_LIVES


def test_a_dataset_gets_the_slug_of_its_name_and_text_as_its_modality():
    made = domain.new_dataset("projects/p", dataset.Dataset(display_name="Bank Intents!", task_type="sft"))
    assert (made.name, list(made.modalities)) == ("projects/p/datasets/bank-intents", ["text"])


@pytest.mark.parametrize(("parent", "task_type"), [("projects/p", "sftt"), ("projects/p", ""), ("projects/-", "sft")])
def test_no_dataset_of_an_unknown_task_type_or_of_all_projects(parent, task_type):
    with pytest.raises(Invalid):
        domain.new_dataset(parent, dataset.Dataset(display_name="a", task_type=task_type))


def test_a_refusal_names_the_first_row_and_keeps_a_hundred():
    found = [Violation(n, "messages", "missing-field", "a list", "none", "add it") for n in range(7, 300)]
    outcome = Outcome(False, 0, found, {"missing-field": len(found)}, read={"id": ["id"]}, unused=["url"])
    refused = upload(state=dataset.UPLOAD_STATE_VALIDATING)
    uploads.refuse(refused, outcome)
    assert refused.state == dataset.UPLOAD_STATE_FAILED and len(refused.violations) == uploads.VIOLATIONS_KEPT
    assert (
        "293 × missing-field" in refused.failure.message and "first row 7, field `messages`" in refused.failure.message
    )
    assert list(refused.names_unused) == ["url"] and list(refused.columns_read[0].names) == ["id"]


@pytest.mark.parametrize("end", [uploads.fail_checksum, uploads.fail_damaged])
def test_other_ends_say_what_to_do(end):
    ended = upload(state=dataset.UPLOAD_STATE_VALIDATING)
    end(ended)
    assert ended.failure.message.endswith("upload the file again") and ended.failure.reason
    with pytest.raises(Fault):
        end(ended)
