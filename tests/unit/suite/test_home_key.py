"""Which key file a home accepts: one that holds the generation it knows, also after a rotation."""

from pathlib import Path

import pytest

from kit.blobs import FileKek
from services.suite.home import Home, SuiteError


def home_of(folder: Path) -> tuple[Home, FileKek]:
    home = Home(folder / "home", {"SLUICE_KEK": str(folder / "kek")})
    (home.path / "run").mkdir(parents=True)
    kek = FileKek.create(home.kek, home=home.path)
    (home.path / "run" / "kek-id").write_text(kek.key_id)
    return home, kek


def test_a_home_takes_the_new_generation_of_its_key(tmp_path: Path) -> None:
    home, kek = home_of(tmp_path)
    kek.rotate()
    home.prepare()
    assert (home.path / "run" / "kek-id").read_text() == kek.key_id
    assert (home.path / "run" / "blobs-url").read_text() == "", "its blobs are in the home itself"


def test_a_copy_of_the_key_from_before_the_rotation_is_refused(tmp_path: Path) -> None:
    home, kek = home_of(tmp_path)
    copy = home.kek.read_text()
    (home.path / "run" / "kek-id").write_text(kek.rotate())
    home.kek.write_text(copy)
    with pytest.raises(SuiteError, match="another than this home was made with"):
        home.prepare()
