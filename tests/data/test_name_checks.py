"""Names that can be shown on one line are taken, however odd; others are refused with the reason."""

from __future__ import annotations

import pytest

from tests.data.test_identity import WILD_NAMES
from whoamai.data.name_checks import check_name
from whoamai.errors import SettingError


@pytest.mark.parametrize("name", [*WILD_NAMES, "a", "x" * 64, "名" * 64, "👩‍🚀", "Δέλτα", "R2 D2"])
def test_a_name_that_can_be_shown_is_taken(name: str):
    check_name(name, "--name")


@pytest.mark.parametrize("name", ["", " ", "\u3000", "\u200b", "\u2060", "\u00ad"])
def test_a_name_with_nothing_to_see_is_refused(name: str):
    with pytest.raises(SettingError, match="--name"):
        check_name(name, "--name")


@pytest.mark.parametrize("bad", ["\n", "\t", "\x00", "\x1b", "\x7f", "\u2028", "\u2029", "\ud800"])
def test_a_name_with_a_character_that_cannot_be_shown_is_refused_with_its_place(bad: str):
    with pytest.raises(SettingError, match=rf"U\+{ord(bad):04X}, at place 3"):
        check_name(f"ab{bad}c", "--name")


def test_a_name_of_65_characters_is_refused_with_its_length():
    with pytest.raises(SettingError, match="65 characters; at most 64"):
        check_name("x" * 65, "--name")


@pytest.mark.parametrize("name", [" a", "a ", "\u3000名", "名\u00a0"])
def test_a_space_around_a_name_is_refused(name: str):
    with pytest.raises(SettingError, match="begins or ends with a space"):
        check_name(name, "--name")
