"""Names from elsewhere lead to settings that are there."""

from __future__ import annotations

import inspect
import re

import pytest

from whoamai.config import names, schema
from whoamai.config.schema import RunConfig

TOP = [*names.sections(), "work_dir", "allow"]


def test_every_section_and_setting_at_the_top_is_known():
    assert list(RunConfig.model_fields) == TOP


@pytest.mark.parametrize(("name", "target"), names._CALLED_HERE.items())
def test_a_name_from_elsewhere_leads_to_a_setting(name: str, target: str):
    assert names.is_setting(tuple(target.split(".")))


@pytest.mark.parametrize("name", [*names._CALLED_HERE, *names._ANSWERS])
def test_a_name_from_elsewhere_is_no_setting_of_ours(name: str):
    assert not any(names.is_setting((section, name)) for section in names.sections())
    assert name not in TOP


@pytest.mark.parametrize("target", names._SECTIONS_HERE.values())
def test_a_section_from_elsewhere_leads_to_a_section(target: str):
    assert target in names.sections()


def test_no_name_is_answered_in_two_ways():
    assert not names._CALLED_HERE.keys() & names._ANSWERS.keys()


def test_what_the_schema_says_of_several_values_begins_with_a_setting():
    """The place of such a problem is found by that name (values.py)."""
    source = inspect.getsource(schema)
    texts = re.findall(r"raise ValueError\(\s*later\(\s*\"(.*?)\"", source, re.DOTALL)
    settings = [name for section in names.sections() for name in names.settings_of(section)]
    assert len(texts) == source.count("raise ValueError")
    for text in texts:
        first = re.split(r"[ :]", text)[0]
        assert first in settings or names.is_setting(tuple(first.split(".")))


def test_only_a_slip_of_the_finger_is_taken_as_meant():
    assert names.explain_unknown("train", "max_epoch").meant == ("train", "max_epochs")
    guess = names.explain_unknown("train", "weights")
    assert guess.meant is None


def test_a_name_without_end_costs_nothing():
    assert names.explain_unknown(None, "x" * 100_000).meant is None
