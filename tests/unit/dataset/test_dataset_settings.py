"""What the environment tells the dataset service."""

import pytest

from services.dataset.settings import load


def test_the_defaults_and_what_is_given():
    settings = load({})
    assert (settings.service, settings.scrub_bytes_per_s, settings.scrub_every_s) == ("dataset", 16 * 2**20, 604_800)
    given = load({"SLUICE_SCRUB_BYTES_PER_S": "0", "SLUICE_SCRUB_EVERY_S": "60", "SLUICE_DATASET_DOOMED_S": "1.5"})
    assert (given.scrub_bytes_per_s, given.scrub_every_s, given.doomed_s) == (0, 60, 1.5)


@pytest.mark.parametrize("variable", ["SLUICE_SCRUB_BYTES_PER_S", "SLUICE_SCRUB_EVERY_S", "SLUICE_DATASET_DOOMED_S"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "fast"])
def test_a_wrong_number_is_named(variable, value):
    with pytest.raises(ValueError, match=rf"{variable} is `{value}`; it takes a number"):
        load({variable: value})
