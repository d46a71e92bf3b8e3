"""Short names become resource names, and back."""

import pytest

from kit.rpc.errors import Invalid, NotFound
from sluice.client import names

P = "projects/p"


@pytest.mark.parametrize(
    ("expand", "short", "full"),
    [
        (names.dataset, "bank-intents", "projects/p/datasets/bank-intents"),
        (names.dataset, "medical_chest_xray_report", "projects/p/datasets/medical-chest-xray-report"),
        (names.dataset, "projects/q/datasets/d", "projects/q/datasets/d"),
        (names.dataset_version, "bank-intents@3", "projects/p/datasets/bank-intents/versions/3"),
        (names.dataset_version, "bank-intents", "projects/p/datasets/bank-intents/versions/latest"),
        (names.dataset_version, "projects/q/datasets/d", "projects/q/datasets/d/versions/latest"),
        (names.model_version, "bank-bot@stable", "projects/p/models/bank-bot/versions/stable"),
        (names.model_version, "bank-bot@3", "projects/p/models/bank-bot/versions/3"),
        (names.endpoint, "-", "projects/p/endpoints/-"),
        (names.api_key, "ci", "projects/p/apiKeys/ci"),
    ],
)
def test_expands(expand, short, full):
    assert expand(P, short) == full


@pytest.mark.parametrize("name", ["", "bank-bot@", "bank-bot@3/4"])
def test_a_name_that_cannot_be_is_refused_or_newest(name):
    if name == "bank-bot@":
        with pytest.raises(Invalid, match="is no version of a model"):
            names.model_version(P, name)
    else:
        with pytest.raises(Invalid):
            names.model_version(P, name)


def test_short_is_the_way_back():
    assert names.short("projects/p/models/bank-bot/versions/3") == "bank-bot@3"
    assert names.short("projects/p/trainingJobs/0193") == "0193"


def test_the_beginning_of_an_id_must_name_one_thing():
    assert names.only(["a/b1"], "b", "job") == "a/b1"
    with pytest.raises(Invalid, match="begins the ids of 2 jobs"):
        names.only(["a/b1", "a/b2"], "b", "job")
    with pytest.raises(NotFound, match="there is no job"):
        names.only([], "b", "job")
