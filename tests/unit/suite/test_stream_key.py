"""The key of the embedded NATS: in the home only wrapped, and never lost by a rotation."""

import stat

import pytest

from kit.blobs import FileKek
from kit.bus.nats_server import KEY_VARIABLE
from kit.bus.stream_key import stream_key
from services.suite.home import Home


@pytest.fixture
def kek(tmp_path):
    return FileKek.create(tmp_path / "kek", home=tmp_path / "home")


def test_it_is_made_once_and_lies_there_wrapped(tmp_path, kek):
    path = tmp_path / "key"
    key = stream_key(path, kek)
    assert len(bytes.fromhex(key)) == 32 and stream_key(path, kek) == key
    assert key not in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_a_rotation_it_is_the_same_and_wrapped_anew(tmp_path, kek):
    path, before = tmp_path / "key", kek.key_id
    key = stream_key(path, kek)
    kek.rotate()
    assert stream_key(path, kek) == key and before not in path.read_text()
    kek.retire(before)
    assert stream_key(path, kek) == key


@pytest.mark.parametrize("damage", [lambda path, other: path.write_text("{}"), lambda path, other: None])
def test_what_cannot_be_opened_is_said_and_left_alone(tmp_path, kek, damage):
    path = tmp_path / "key"
    stream_key(path, kek)
    damage(path, kek)
    before = path.read_text()
    with pytest.raises(ValueError, match="cannot be opened"):
        stream_key(path, FileKek.create(tmp_path / "other", home=tmp_path / "home"))
    assert path.read_text() == before


def test_the_configuration_names_the_variable_and_not_the_key(tmp_path):
    home = Home(tmp_path / "home", {"SLUICE_KEK": str(tmp_path / "kek")})
    home.prepare()
    config, passwords = home.nats(4222)
    key = home.stream_key()
    text = config.read_text()
    assert f'"key": ${KEY_VARIABLE}' in text and key not in text
    assert "feeds" in passwords and '"sluice.feed.v1.>"' in text
