"""What the environment may say, and the sentence about what it may not."""

from pathlib import Path

import pytest

from kit.settings import Settings


def load(**environ):
    return Settings.from_env("dataset", {"SLUICE_HOME": "/srv/suite", **environ})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOG_LEVEL", "LOUD"),
        ("ENABLE_AUTH", "0"),
        ("SLUICE_RECONCILE_S", "soon"),
        ("SLUICE_RECONCILE_S", "0"),
        ("SLUICE_RECONCILE_S", "nan"),
        ("SLUICE_DUPLICATE_WINDOW_S", "inf"),
        ("SLUICE_FIRST_KEY_SHA256", "abc"),
        ("SLUICE_NATS_REPLICAS", "2"),
    ],
)
def test_a_wrong_value_names_its_variable(variable, value):
    with pytest.raises(ValueError, match=f"{variable} is "):
        load(**{variable: value})


def test_defaults_lie_below_the_home_and_the_key_does_not():
    settings = load(XDG_CONFIG_HOME="/srv/config")
    assert settings.enable_auth and settings.database_url == "sqlite:////srv/suite/db/dataset.db"
    assert settings.blobs_url == "file:///srv/suite/blobs" and settings.kek_path == Path("/srv/config/sluice/kek")


def test_each_service_has_its_own_database():
    assert load(SLUICE_DATABASE_URL="postgresql://host/{service}").database_url == "postgresql://host/dataset"


def test_a_home_with_odd_characters_is_still_one_url():
    assert load(SLUICE_HOME="/srv/my suite#1").blobs_url == "file:///srv/my%20suite%231/blobs"


def test_an_address_that_is_missing_names_its_variable():
    with pytest.raises(ValueError, match="SLUICE_ENGINE_HOST_ADDRESS is not set"):
        load().address("engine-host")


def test_the_password_is_not_in_the_representation():
    assert "s3cret" not in repr(load(SLUICE_NATS_PASSWORD="s3cret"))
