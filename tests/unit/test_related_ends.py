"""A name ends with what it serves: aliases, snapshots, reported names and fine-tunes (F11)."""

from collections.abc import Mapping
from datetime import date

import pytest

from harness.providers.models.catalogue import (
    CONFIGURATION,
    CatalogueEntry,
    LitellmTable,
    build_catalogue,
)
from harness.providers.models.model_ends import EndDates, EndState, describe_end
from harness.providers.models.related_ends import RelatedEnds, Relation, find_base

pytestmark = pytest.mark.req("F11")

TODAY = date(2026, 12, 1)
SOON = date(2026, 12, 11)
LATER = date(2027, 1, 14)
PAST = date(2026, 10, 23)


def found(
    dates: Mapping[str, date | None], model: str, answered: tuple[str, ...] = ()
) -> tuple[str, Relation] | None:
    ends = RelatedEnds({name: EndDates(day) for name, day in dates.items()})
    related = ends.find(model, TODAY, answered)
    return (related.model, related.relation) if related else None


@pytest.mark.parametrize(
    ("alias", "snapshot"),
    [
        ("gpt-5-mini", "gpt-5-mini-2025-08-07"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5@20250929"),
        ("mistral-large-latest", "mistral-large-2512"),
        ("gpt-4", "gpt-4-0613"),
        ("gemini-2.0-flash", "gemini-2.0-flash-001"),
        ("anthropic.claude-3-haiku", "anthropic.claude-3-haiku-20240307-v1:0"),
    ],
)
def test_an_alias_ends_with_its_snapshot(alias: str, snapshot: str) -> None:
    assert found({alias: None, snapshot: SOON}, alias) == (snapshot, Relation.SNAPSHOT)
    assert found({snapshot: SOON}, alias) == (snapshot, Relation.SNAPSHOT)


@pytest.mark.parametrize(
    ("model", "other"),
    [
        ("gpt-5", "gpt-5-mini-2025-08-07"),
        ("gpt-4", "gpt-4-1106-preview"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("claude-opus-4", "claude-opus-4-1"),
        ("gpt-4o", "gpt-4o-audio-preview-2025-06-03"),
    ],
)
def test_another_model_s_end_is_not_taken(model: str, other: str) -> None:
    assert found({other: SOON}, model) is None


def test_of_the_snapshots_that_still_serve_the_earliest_end_governs() -> None:
    dates = {"m-2024-05-13": PAST, "m-2024-08-06": LATER, "m-2024-11-20": date(2028, 1, 1)}

    assert found(dates, "m") == ("m-2024-08-06", Relation.SNAPSHOT)
    assert found({"m": SOON, **dates}, "m") == ("m", Relation.ITSELF)


def test_an_alias_has_ended_if_all_its_snapshots_have_unless_answers_name_another() -> None:
    dates: dict[str, date | None] = {"m-2024-05-13": date(2026, 1, 1), "m-2024-08-06": PAST}

    assert found(dates, "m") == ("m-2024-08-06", Relation.SNAPSHOT)
    assert found(dates, "m", ("m-2026-01-01",)) is None


def test_latest_ends_with_the_newest_snapshot() -> None:
    dates: dict[str, date | None] = {"mistral-large-2407": SOON, "mistral-large-2512": None}

    assert found(dates, "mistral-large-latest") is None


def test_a_name_ends_with_the_model_that_its_answers_report() -> None:
    dates: dict[str, date | None] = {"claude-4-20260101": SOON}

    assert found(dates, "support-bot", ("claude-4-20260101",)) == (
        "claude-4-20260101",
        Relation.ANSWERED,
    )


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ft:gpt-4o-mini-2024-07-18:acme::A1b2", "gpt-4o-mini-2024-07-18"),
        ("ft:gpt-4.1:acme:tickets:A1b2", "gpt-4.1"),
        (
            "gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678",
            "gpt-4o-mini-2024-07-18",
        ),
        ("gpt-4o", ""),
        ("swift:model", ""),
    ],
)
def test_the_base_of_a_fine_tune_is_read(name: str, base: str) -> None:
    assert find_base(name) == base


def test_a_fine_tune_ends_with_its_base_or_with_the_base_s_snapshot() -> None:
    name = "ft:gpt-4.1:acme::A1b2"

    assert found({"gpt-4.1-2025-04-14": LATER}, name) == ("gpt-4.1-2025-04-14", Relation.BASE)
    assert found({"ft:gpt-4.1": SOON, "gpt-4.1": LATER}, name) == (
        "ft:gpt-4.1",
        Relation.BASE,
    )


def test_the_operator_s_day_replaces_the_days_of_related_names() -> None:
    catalogue = build_catalogue(
        [
            CatalogueEntry("openai", "m", end_date=LATER, end_source=CONFIGURATION),
            CatalogueEntry("openai", "m-2025-01-01", end_date=SOON),
        ]
    )

    end = catalogue.find_end("openai", "m", TODAY)

    assert end is not None
    assert (end.day, end.source) == (LATER, CONFIGURATION)


def test_a_gateway_s_name_ends_with_the_vendor_s_model() -> None:
    catalogue = build_catalogue([CatalogueEntry("openai", "m-2025-01-01", end_date=SOON)])

    end = catalogue.find_end("openrouter", "openai/m", TODAY)

    assert end is not None
    assert end.source == "the model catalogue, for its snapshot m-2025-01-01"


@pytest.mark.parametrize(
    ("model", "day"),
    [
        ("gpt-5", date(2026, 12, 11)),
        ("gpt-5-mini", date(2026, 12, 11)),
        ("gpt-5-nano", date(2026, 12, 11)),
        ("o3", date(2026, 12, 11)),
        ("gpt-4o", date(2027, 1, 14)),
        ("gpt-4o-mini", date(2027, 1, 14)),
        ("gpt-4.1", date(2027, 1, 14)),
        ("gpt-4.1-mini", date(2027, 1, 14)),
        ("ft:gpt-4.1-mini-2025-04-14:acme::A1b2", date(2027, 1, 14)),
    ],
)
def test_the_shipped_catalogue_dates_the_aliases_of_dated_snapshots(
    model: str, day: date
) -> None:
    end = LitellmTable().catalogue().find_end("openai", model, TODAY)

    assert end is not None
    assert end.day == day


def test_an_end_without_a_source_is_unknown_and_only_a_list_that_tells_ends_says_none() -> None:
    unknown = describe_end(None, to_know="read the list")
    none_announced = describe_end(None, read_on=TODAY)

    assert (unknown.state, unknown.text) == (EndState.UNKNOWN, "unknown: read the list")
    assert none_announced.state is EndState.NOT_ANNOUNCED
    assert none_announced.text == "no end is announced in its provider's list of 1 Dec 2026"


def test_a_name_ends_with_the_base_or_snapshot_of_the_model_that_its_answers_name() -> None:
    dates: dict[str, date | None] = {"gpt-4.1-2025-04-14": LATER}

    assert found(dates, "bot", ("gpt-4.1",)) == ("gpt-4.1-2025-04-14", Relation.SNAPSHOT)
    assert found(dates, "bot", ("gpt-4.1-2025-04-14.ft-0a1b",)) == (
        "gpt-4.1-2025-04-14",
        Relation.BASE,
    )


def test_a_gateway_s_own_entry_hides_no_vendor_s_end_and_its_answers_may_name_the_vendor() -> (
    None
):
    catalogue = build_catalogue(
        [
            CatalogueEntry("openai", "m-2025-01-01", end_date=SOON),
            CatalogueEntry("openrouter", "openai/m", context_window=1_000),
        ]
    )

    for model, answered in (("openai/m", ()), ("openai/auto", ("openai/m-2025-01-01",))):
        end = catalogue.find_end("openrouter", model, TODAY, answered)

        assert end is not None
        assert end.day == SOON


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("anthropic/claude-sonnet-4.5", "anthropic", "claude-sonnet-4-5-20250929"),
        ("anthropic/claude-sonnet-4.5:beta", "anthropic", "claude-sonnet-4-5"),
        ("openai/gpt-4.1:nitro", "openai", "gpt-4.1"),
        ("google/gemini-2.5-pro", "gemini", "gemini-2.5-pro"),
        ("bedrock/anthropic.claude-v2:1", "bedrock", "anthropic.claude-v2:1"),
    ],
)
def test_a_gateway_s_spelling_of_a_vendor_s_model_is_read(
    name: str, kind: str, model: str
) -> None:
    catalogue = build_catalogue([CatalogueEntry(kind, model, end_date=SOON)])

    for gateway in ("openrouter", "litellm"):
        end = catalogue.find_end(gateway, name, TODAY)

        assert end is not None
        assert end.day == SOON
    assert catalogue.find_end("openrouter", f"other{name}", TODAY) is None


def test_a_model_on_a_server_of_your_own_does_not_end_with_a_vendor_s() -> None:
    catalogue = build_catalogue([CatalogueEntry("openai", "m", end_date=SOON)])

    assert catalogue.find_end("vllm", "openai/m", TODAY) is None
    assert catalogue.find_end("litellm", "openai/m", TODAY) is not None
