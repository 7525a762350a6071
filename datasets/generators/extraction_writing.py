"""How the same date, amount, number and time is written in different letters."""

from datetime import date, timedelta
from random import Random

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
SYMBOLS = {"EUR": "€", "USD": "US$", "GBP": "£", "CHF": "CHF "}
SPOKEN = {"EUR": "euros", "USD": "US dollars", "GBP": "pounds sterling", "CHF": "Swiss francs"}
COUNTS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def some_date(rng: Random, *, after: str = "2025-01-06", within: int = 330) -> str:
    """An ISO date 3 to `within` days after another one."""
    day = date.fromisoformat(after) + timedelta(days=rng.randint(3, within))
    return day.isoformat()


def date_text(rng: Random, iso: str) -> tuple[str, bool]:
    """The date in one of six forms, and whether that form needs rewriting in the head.

    In figures with dots only where the day cannot be taken for a month.
    """
    day = date.fromisoformat(iso)
    month = MONTHS[day.month - 1]
    forms = [
        (iso, False),
        (f"{day.day} {month} {day.year}", False),
        (f"{month} {day.day}, {day.year}", True),
        (f"{day.day}-{month[:3]}-{day.year % 100}", True),
        (f"{day:%a} {day.day} {month[:3]}. {day.year}", True),
    ]
    if day.day > 12:
        forms.append((f"{day.day:02}.{day.month:02}.{day.year}", True))
    return rng.choice(forms)


def money_text(rng: Random, amount: float, currency: str) -> tuple[str, bool]:
    """The amount in one of five forms, and whether that form is out of the ordinary."""
    english = f"{amount:,.2f}"
    continental = english.translate(str.maketrans(",.", ".,"))
    forms = [
        (f"{currency} {amount:.2f}", False),
        (f"{SYMBOLS[currency]}{english}", False),
        (f"{english} {SPOKEN[currency]}", False),
    ]
    if currency in {"EUR", "CHF"}:
        forms += [
            (f"{continental} {currency}", True),
            (f"{continental} {SPOKEN[currency]}", True),
        ]
    return rng.choice(forms)


def count_text(rng: Random, count: int) -> tuple[str, bool]:
    """A count in digits, or in words when it is small."""
    if count < len(COUNTS) and rng.random() < 0.5:
        return COUNTS[count], True
    return str(count), False


def weight_text(rng: Random, kilos: float) -> tuple[str, bool]:
    """A weight in kg, or in grams, which takes a conversion."""
    if rng.random() < 0.35:
        return f"{round(kilos * 1000)} g", True
    return f"{kilos:g} kg", False


def time_text(rng: Random, clock: str) -> tuple[str, bool]:
    """A time of day such as 14:30, also as 2:30 pm."""
    hour, minute = map(int, clock.split(":"))
    half = "am" if hour < 12 else "pm"
    forms = (
        (clock, False),
        (f"{(hour - 1) % 12 + 1}:{minute:02} {half}", True),
        (f"{hour}.{minute:02} h", True),
    )
    return rng.choice(forms)


def minutes_text(rng: Random, minutes: int) -> tuple[str, bool]:
    """A length of time in minutes, also in hours."""
    hours = {30: "half an hour", 60: "one hour", 90: "an hour and a half", 120: "two hours"}
    if minutes in hours and rng.random() < 0.5:
        return hours[minutes], True
    return f"{minutes} minutes", False
