"""Declared settings of routes and limits of keys, and the interfaces that follow from them."""

import math
from dataclasses import dataclass, fields

import pytest
from pydantic import ValidationError

from harness.app.configuration.configuration import json_schema
from harness.app.configuration.validation_errors import RANGES
from harness.frame.configuration.setting import (
    Declaration,
    FormEntry,
    change_settings,
    check_settings,
    describe_settings,
    plain_settings,
    setting,
    settings_of,
)
from harness.frame.errors import InputError
from harness.frame.formatting import Range
from harness.frame.people.limits import KeyLimits
from harness.interfaces.api.frame.setting_fields import settings_body
from harness.interfaces.api.operations import LimitsBody
from harness.interfaces.api.routing import RouteBody, SettingsBody
from harness.interfaces.cli.frame.command import command, taken_from
from harness.interfaces.cli.frame.setting_options import options_of
from harness.interfaces.cli.operations import client_keys
from harness.interfaces.cli.routing import route_options, routes
from harness.routing.route_settings import RouteSettings

PLAIN = plain_settings(RouteSettings)
NUMBERS = [declared for declared in PLAIN if declared.kind in (int, float)]
named = pytest.mark.parametrize("declared", PLAIN, ids=lambda declared: declared.name)
numbered = pytest.mark.parametrize("declared", NUMBERS, ids=lambda declared: declared.name)


def test_each_field_of_a_routes_settings_is_declared() -> None:
    assert list(settings_of(RouteSettings)) == [field.name for field in fields(RouteSettings)]
    captions = [declared.caption for declared in settings_of(RouteSettings).values()]
    assert len(set(captions)) == len(captions)


@named
def test_each_plain_setting_is_an_option_of_both_commands(declared: Declaration) -> None:
    for verb in (routes.create, route_options.settings):
        [option] = [given for given in verb.params if given.name == declared.name]
        assert str(getattr(option, "help", "")).startswith(declared.meaning)


@named
def test_each_plain_setting_is_a_field_of_the_api_and_a_key_of_the_file(
    declared: Declaration,
) -> None:
    assert declared.name in SettingsBody.model_fields
    assert declared.name in RouteBody.model_fields
    entry = json_schema()["$defs"]["RouteEntry"]["properties"]  # type: ignore[index]
    assert entry[declared.key]["description"].startswith(declared.meaning)


@named
def test_each_plain_setting_has_an_entry_in_the_dashboards_form(declared: Declaration) -> None:
    assert declared.form is not None
    assert declared.form.label


@numbered
def test_each_number_has_a_range_that_all_interfaces_apply(declared: Declaration) -> None:
    assert declared.range is not None
    most = declared.range.high
    for wrong in (-1, math.nextafter(most, math.inf), most * 2, math.nan):
        with pytest.raises(InputError, match=declared.key):
            declared.check(wrong)
        with pytest.raises(ValidationError):
            SettingsBody.model_validate({declared.name: wrong})
    declared.check(most)
    SettingsBody.model_validate({declared.name: most})
    assert declared.written or declared.key in RANGES


@numbered
def test_the_default_of_each_number_lies_in_its_range(declared: Declaration) -> None:
    declared.check(declared.default)
    assert declared.read(declared.written_default) == declared.default


def test_0_removes_a_time_limit_and_no_other_value() -> None:
    before = RouteSettings(first_byte_timeout_s=3.0, responses_state_h=1.0)
    after = change_settings(before, {"first_byte_timeout_s": 0, "responses_state_h": 0})
    assert (after.first_byte_timeout_s, after.responses_state_h) == (None, 0)


def test_each_limit_of_a_client_key_is_an_option_and_a_field_of_the_api() -> None:
    limits = [field.name for field in fields(KeyLimits)]
    assert list(settings_of(KeyLimits)) == limits
    assert list(LimitsBody.model_fields) == limits
    assert LimitsBody().limits() == KeyLimits()
    for verb in (client_keys.create, client_keys.change_limits):
        assert {given.name for given in verb.params} >= set(limits)


def test_none_removes_a_limit_of_a_key_and_0_stays_a_limit() -> None:
    before = KeyLimits(requests_per_min=5, budget_day_usd=5)
    after = change_settings(before, {"requests_per_min": "none", "budget_day_usd": 0})
    assert after == KeyLimits(budget_day_usd=0)


@dataclass(frozen=True, kw_only=True)
class Kettle:
    """A record with one declared number, as a new setting of a route would be."""

    boil_s: float = setting(
        60.0,
        Declaration(
            meaning="Time to boil the water.",
            caption="boils for",
            format=lambda seconds: f"{seconds:g} s",
            range=Range(1, 600),
            form=FormEntry(label="Time to boil, seconds"),
        ),
    )


def test_a_declared_number_needs_no_other_code_to_be_in_each_interface() -> None:
    @command()
    def heat(*, options: object = taken_from(options_of(Kettle, new="New kettles"))) -> None:
        """Heat."""

    [option] = heat.params
    assert option.opts == ["--boil"]
    assert getattr(option, "help", "") == "Time to boil the water. New kettles: 60."
    schema = settings_body(Kettle).model_json_schema()["properties"]["boil_s"]
    assert schema["anyOf"][0] == {"type": "number", "minimum": 1, "maximum": 600}
    assert describe_settings(Kettle(boil_s=5)) == {"boils for": "5 s"}
    with pytest.raises(InputError, match=r"boil_s: 1 to 600, not 0\.5"):
        check_settings(Kettle(boil_s=0.5))
