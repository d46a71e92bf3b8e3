"""What every rpc, message and event of the contract must have, read off the compiled descriptors."""

import re

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from kit.auth import authorize
from kit.rpc import contract
from kit.rpc.errors import KINDS
from kit.rpc.interceptors import interceptors
from kit.store import event_type
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PACKAGES = (dataset, evaluator, events, gateway, registry, trainer)  # imported, they are in the pool
POOL = descriptor_pool.Default()
METHODS = {
    f"{service}/{method.name}": method
    for service in contract.service_names()
    for method in POOL.FindServiceByName(service).methods
}
SERVICES = {"dataset", "trainer", "evaluator", "registry", "gateway", "engine-host"}
READS = re.compile(r"Get|List|Watch|Read|WhoAmI|Sync")

#: Changes without `request_id`, and why a repeat does no harm or cannot be had.
WITHOUT_REQUEST_ID = {
    "WriteUpload": "offsets make a repeat a refusal",
    "WriteTokenizer": "the digest that was announced makes a repeat the same",
    "NameAssets": "a path that comes again takes the digest that comes with it",
    "WriteAssets": "the digest of each makes a repeat the same",
    "CommitUpload": "committing twice is committing once",
    "ImportModelVersion": "the same weights are the same version",
    "CreateApiKey": "the secret is stored nowhere, so there is no first answer to give again",
    "RevokeApiKey": "revoking twice is revoking once",
    "ReportAttempt": "fenced by the epoch",
    "CreateCandidateRoute": "the version's route that is there is the answer",
    "ReleaseCandidateRoute": "releasing twice is releasing once",
    "LoadModel": "level-triggered: it says what should be loaded",
    "UnloadModel": "level-triggered",
    "PlanTrainingJob": "changes nothing",
}
#: Changes of something that has an etag, whose caller need not have read it.
WITHOUT_ETAG = {"ReleaseCandidateRoute": "given back by who took it", "ReportAttempt": "fenced by the epoch"}
CHANGES = re.compile(r"Update|Cancel|Pause|Resume|Retry|Promote|Rollback|Approve|Revoke|Delete|Release|Report")


def short(name):
    return name.rsplit("/", 1)[-1]


def fields_of(message):
    return {field.name: field for field in message.fields}


@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_says_who_may_call_it(name):
    options = METHODS[name].GetOptions()
    assert options.HasExtension(types.access), f"{name} lacks option (sluice.types.v1.access)"
    access = options.Extensions[types.access]
    assert set(access.services) <= SERVICES
    assert types.ROLE_ADMIN not in access.roles, "an administrator always may"


@pytest.mark.parametrize("name", [name for name in METHODS if not READS.match(short(name))])
def test_every_change_can_be_repeated_safely(name):
    given = "request_id" in fields_of(METHODS[name].input_type)
    assert given != (short(name) in WITHOUT_REQUEST_ID), f"{name}: request_id, or a reason in WITHOUT_REQUEST_ID"


@pytest.mark.parametrize("name", [name for name in METHODS if CHANGES.match(short(name))])
def test_every_change_of_what_is_there_takes_an_etag(name):
    fields = fields_of(METHODS[name].input_type)
    inner = [field.message_type for field in fields.values() if field.message_type is not None]
    given = "etag" in fields or any("etag" in fields_of(message) for message in inner)
    assert given != (short(name) in WITHOUT_ETAG), f"{name}: etag, or a reason in WITHOUT_ETAG"


@pytest.mark.parametrize("name", METHODS)
def test_requests_and_responses_carry_the_name_of_their_rpc(name):
    method = METHODS[name]
    assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")


@pytest.mark.parametrize("name", [name for name in METHODS if short(name).startswith("List")])
def test_lists_come_in_pages(name):
    asked, answered = fields_of(METHODS[name].input_type), fields_of(METHODS[name].output_type)
    if short(name) == "ListLoadedModels":  # an engine host has a handful
        return
    assert {"page_size", "page_token"} <= asked.keys() and "next_page_token" in answered


def events_of(package):
    file = POOL.FindFileByName(f"sluice/{package}/v1/events.proto")
    return [getattr(globals()[package], name) for name in file.message_types_by_name]


EVENTS = [kind for package in ("dataset", "evaluator", "gateway", "registry", "trainer") for kind in events_of(package)]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.DESCRIPTOR.full_name)
def test_an_event_is_a_noun_and_a_verb_in_the_past(kind):
    name = event_type(kind)
    assert re.fullmatch(r"sluice\.[a-z]+\.v1\.[a-z]+(_[a-z]+)*\.[a-z]+(ed|en)", name), name


def test_no_two_events_are_of_one_type():
    assert len({event_type(kind) for kind in EVENTS}) == len(EVENTS)


def test_the_one_list_of_interceptors():
    layers = interceptors(lambda metadata: None, authorize)
    assert [type(layer).__name__ for layer in layers] == [
        "Telemetry",
        "AccessLog",
        "Auth",
        "Faults",
        "Validation",
        "Encoding",
    ]


def reasons_with_comments():
    image = descriptor_pb2.FileDescriptorSet.FromString((contract.files("sluice") / "descriptors.binpb").read_bytes())
    file = next(each for each in image.file if each.name == "sluice/errors/v1/error_reason.proto")
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    return {value.number: comments.get((5, 0, 2, index), "") for index, value in enumerate(file.enum_type[0].value)}


def test_every_reason_says_its_code_and_is_numbered_without_gaps():
    told = reasons_with_comments()
    assert sorted(told) == sorted(errors.ErrorReason.values()) == list(range(len(told)))
    codes = {kind.code.name for kind in KINDS} | {"Seen on jobs", "Never sent"}
    for number, comment in told.items():
        assert any(code in comment for code in codes), errors.ErrorReason.Name(number)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_usual_reason_of_each_kind_is_of_its_code(kind):
    assert kind.code.name in reasons_with_comments()[kind.default_reason]


def test_who_may_be_told_of_the_exceptions_is_real():
    assert {*WITHOUT_REQUEST_ID, *WITHOUT_ETAG} <= {short(name) for name in METHODS}
