"""Names, page tokens, field masks and the projects of a request."""

from __future__ import annotations

import base64

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from kit.rpc import contract, masks, names, paging
from kit.rpc.errors import Invalid
from kit.rpc.projects import projects_of
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry


@pytest.mark.parametrize(
    ("display_name", "expected"),
    [
        ("medical_chest_xray_report", "medical-chest-xray-report"),
        ("  Café — Crème!  ", "cafe-creme"),
        ("Straße", "strasse"),
        ("v1.2", "v1-2"),
        ("a" * 63, "a" * 63),
    ],
)
def test_slugs_of_latin_names(display_name: str, expected: str) -> None:
    assert names.slug(display_name) == expected


def test_names_that_differ_in_what_is_lost_stay_apart() -> None:
    found = {names.slug(name) for name in ("胸片 v2", "诊断 v2", "胸片", "诊断", "a" * 64, "a" * 65, "!", "?")}
    assert len(found) == 8
    assert names.slug("胸片 v2").startswith("v2-")


@given(st.text(max_size=200))
def test_every_slug_is_an_id(display_name: str) -> None:
    found = names.slug(display_name)
    assert 0 < len(found) <= names.MAX_SLUG
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and found.strip("-") == found
    assert names.slug(display_name) == found


@pytest.mark.parametrize("cursor", [[], ["x", "y"], ["x"], [2**63], [True], [1.5]])
def test_a_token_that_somebody_made_up_is_refused(cursor: list[object]) -> None:
    assert paging.decode(paging.encode([7], "q"), "q", of=(int,)) == [7]
    with pytest.raises(Invalid, match="page_token"):
        paging.decode(paging.encode(cursor, "q"), "q", of=(int,))


@pytest.mark.parametrize(
    ("name", "project", "parent"),
    [
        ("projects/p/datasets/d/versions/3", "projects/p", "projects/p/datasets/d"),
        ("projects/p/datasets/d", "projects/p", "projects/p"),
        ("projects/p", "projects/p", ""),
        ("projects/-", "projects/-", ""),
        ("taskTypes/sft", "", ""),
        ("projects//datasets/d", "", "projects/"),
        ("projects/p\n", "", ""),
        ("", "", ""),
    ],
)
def test_parts_of_names(name: str, project: str, parent: str) -> None:
    assert (names.project_of(name), names.parent_of(name)) == (project, parent)


def test_uuids_follow_time() -> None:
    found = [names.uuid7() for _ in range(50)]
    assert found == sorted(found) and len(set(found)) == 50 and found[0][14] == "7"


@given(
    st.lists(st.text() | st.integers(1 - 2**63, 2**63 - 1), max_size=3),
    st.lists(st.text(max_size=5), max_size=3),
    st.text(max_size=5),
)
def test_a_page_token_continues_its_own_query_only(cursor: list[str | int], query: list[str], other: str) -> None:
    token = paging.encode(cursor, *query)
    assert paging.decode(token, *query) == cursor
    with pytest.raises(Invalid) as caught:
        paging.decode(token, *query, other)
    assert caught.value.reason_name == "INVALID_PAGE_TOKEN"


@given(st.text(min_size=1))
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Invalid, match="page_token"):
        paging.decode(token, "ListDatasets", "projects/p")


@pytest.mark.parametrize("content", ["5", "[]", "{}", '"text"', "null", "[[]]", "[" * 100_000])
def test_json_that_is_no_token_is_refused(content: str) -> None:
    with pytest.raises(Invalid, match="page_token"):
        paging.decode(base64.urlsafe_b64encode(content.encode()).decode(), "ListDatasets")


def test_first_pages_and_sizes() -> None:
    assert paging.decode("", "ListDatasets") is None
    assert [paging.page_size(asked) for asked in (0, 7, 5000)] == [50, 7, 1000]


def changed(*paths: str) -> tuple[list[str], dataset.Dataset]:
    target = dataset.Dataset(name="n", description="old", modalities=["text"], tags={"a": "1"})
    source = dataset.Dataset(name="other", description="", modalities=["image", "text"], tags={"b": "2"})
    allowed = ["description", "modalities", "tags"]
    return masks.apply(target, source, FieldMask(paths=paths), allowed), target


def test_a_mask_copies_its_fields_and_clears_the_absent() -> None:
    paths, target = changed("description", "tags")
    assert paths == ["description", "tags"]
    assert (target.name, target.description, list(target.modalities), dict(target.tags)) == (
        "n",
        "",
        ["text"],
        {"b": "2"},
    )


def test_an_empty_mask_means_all_that_may_change() -> None:
    paths, target = changed()
    assert paths == ["description", "modalities", "tags"]
    assert (target.name, list(target.modalities), dict(target.tags)) == ("n", ["image", "text"], {"b": "2"})


def test_a_path_that_may_not_change_is_named_with_those_that_may() -> None:
    with pytest.raises(Invalid, match=r"`name`.*`description`, `modalities`, `tags`") as caught:
        changed("description", "name")
    assert [field for field, _ in caught.value.violations] == ["update_mask"]


def test_nested_paths_copy_what_they_name() -> None:
    target = registry.CreateProjectRequest(request_id="1")
    source = registry.CreateProjectRequest(request_id="2")
    source.project.display_name = "new"
    masks.apply(target, source, FieldMask(paths=["project.display_name"]), ["project.display_name"])
    assert target.project.display_name == "new" and target.request_id == "1"


def test_the_projects_of_a_request() -> None:
    update = dataset.UpdateDatasetRequest(dataset=dataset.Dataset(name="projects/p/datasets/d"))
    assert projects_of(update) == ["projects/p"]
    assert projects_of(registry.ListProjectsRequest()) == []
    assert projects_of(registry.GetTaskTypeRequest(name="taskTypes/sft")) == []
    prose = dataset.Dataset(name="projects/p/datasets/d", description="projects/q is where it came from")
    assert projects_of(dataset.UpdateDatasetRequest(dataset=prose)) == ["projects/p"]
    with pytest.raises(Invalid, match="name is not a resource name"):
        projects_of(dataset.UpdateDatasetRequest(dataset=dataset.Dataset(name="projects//datasets/d")))


def test_what_may_be_repeated() -> None:
    found = set(contract.repeatable_methods())
    assert ("sluice.dataset.v1.DatasetService", "GetDataset") in found
    assert ("sluice.dataset.v1.DatasetService", "CreateDataset") in found
    assert ("sluice.registry.v1.ApiKeyService", "CreateApiKey") not in found
    assert ("sluice.dataset.v1.UploadService", "WriteUpload") not in found
