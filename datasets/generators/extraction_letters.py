"""Texts of persons: their fields and the remarks that get in the way."""

from random import Random
from typing import Any

from generators import extraction_writing as writing
from generators.extraction_fields import (
    CURRENCY,
    FIRMS,
    GOODS,
    PEOPLE,
    PLACES,
    Field,
    Kind,
    amount,
    code,
    date_field,
    enum_field,
    money_field,
    one_of,
    text_field,
)


def say_time(rng: Random, value: Any, _: str) -> tuple[str, bool]:
    return writing.time_text(rng, value)


def say_minutes(rng: Random, value: Any, _: str) -> tuple[str, bool]:
    return writing.minutes_text(rng, value)


SUPPORT = Kind(
    "support-mail",
    ("Mail to support", "Complaint", "Message from the contact form"),
    (
        text_field(
            "customer",
            "the person whose device it is",
            one_of(*PEOPLE),
            ("Name", "Customer", "Owner"),
            ("My name is {v}.", "The device belongs to {v}.", "I am {v}, the owner."),
        ),
        text_field(
            "product",
            "the device, as named in the text",
            one_of(*GOODS),
            ("Product", "Device", "Concerns"),
            ("It is about my {v}.", "The {v} has failed me.", "My {v} has stopped working."),
        ),
        text_field(
            "serial_number",
            "the serial number of the device, or null",
            code("SN?####?##"),
            ("Serial", "S/N", "Device no."),
            ("The sticker says {v}.", "On the back it reads {v}.", "Serial number: {v}."),
            optional=True,
        ),
        date_field(
            "purchase_date",
            "the day it was bought, or null",
            ("Bought", "Purchased on", "Date of purchase"),
            ("I bought it on {v}.", "The receipt is dated {v}.", "I have had it since {v}."),
            optional=True,
        ),
        text_field(
            "phone",
            "the number to call back, or null",
            code("+44 20 7946 0###"),
            ("Phone", "Call back", "Tel."),
            ("You can reach me at {v}.", "Please ring {v}.", "My number is {v}."),
            optional=True,
        ),
        enum_field(
            "wish",
            "what the customer asks for",
            ("Wish", "Requested"),
            {
                "repair": (
                    "I would like it fixed.",
                    "Please mend it; I want to keep this one.",
                ),
                "replacement": ("Send me a new one instead.", "I want it swapped for another."),
                "refund": ("I want my money back.", "Please return what I paid."),
                "advice": ("Just tell me how to set it right.", "A hint what to do would do."),
            },
        ),
    ),
    (
        ("serial_number", "(My neighbour's, {v}, works well.)"),
        ("purchase_date", "It first failed on {v}."),
        ("purchase_date", "Your shop promised an answer by {v}."),
        ("phone", "Do not use the old number {v}."),
        ("customer", "{v} of your team was very kind last time."),
        ("product", "The {v} from the same parcel is fine."),
    ),
)

APPOINTMENT = Kind(
    "appointment",
    ("Appointment", "Re: our meeting", "Calendar note"),
    (
        text_field(
            "host",
            "who receives the guest",
            one_of(*PEOPLE),
            ("With", "Host", "You meet"),
            ("You will meet {v}.", "{v} is looking forward to it.", "Your host is {v}."),
        ),
        date_field(
            "date",
            "the day that holds now",
            ("Day", "Date", "When"),
            ("We meet on {v}.", "The day is now {v}.", "Let us fix {v}."),
        ),
        Field(
            "start_time",
            "the beginning, as HH:MM in 24 hours",
            {"type": "string", "pattern": r"^\d{2}:\d{2}$"},
            lambda rng: f"{rng.randint(8, 17):02}:{rng.choice((0, 15, 30, 45)):02}",
            say_time,
            ("Time", "Start", "From"),
            ("It begins at {v}.", "Please be there at {v}.", "Start: {v}."),
        ),
        Field(
            "duration_minutes",
            "how long it lasts in minutes, an integer",
            {"type": "integer", "minimum": 1},
            lambda rng: rng.choice((20, 30, 45, 60, 75, 90, 120)),
            say_minutes,
            ("Length", "Duration", "Takes"),
            ("It will take {v}.", "Plan {v} for it.", "We have set aside {v}."),
        ),
        text_field(
            "place",
            "where it is, or null",
            one_of(*PLACES),
            ("Where", "Place", "Location"),
            ("Come to {v}.", "It takes place at {v}.", "The place is {v}."),
            optional=True,
        ),
        enum_field(
            "status",
            "how things stand, or null if the text does not say",
            ("Status", "State"),
            {
                "confirmed": ("All of us have agreed.", "This is settled."),
                "tentative": ("It still depends on an answer.", "Take it as pencilled in."),
            },
            optional=True,
        ),
    ),
    (
        ("date", "The first proposal, {v}, does not suit us any more."),
        ("date", "On {v} the office is closed."),
        ("start_time", "Parking is free until {v}."),
        ("start_time", "The canteen closes at {v}."),
        ("host", "{v}, whom you met last time, has left the team."),
        ("duration_minutes", "The last one was too long with {v}."),
        ("place", "We no longer use {v}."),
    ),
)

EXPENSE = Kind(
    "expense",
    ("Expense claim", "Receipt for refunding", "Outlay"),
    (
        text_field(
            "employee",
            "who spent the money",
            one_of(*PEOPLE),
            ("Employee", "Claimant", "Paid by"),
            ("{v} paid for it.", "The claim is from {v}.", "Please refund {v}."),
        ),
        text_field(
            "merchant",
            "where the money was spent",
            one_of(*FIRMS),
            ("Merchant", "Seller", "Paid to"),
            ("The money went to {v}.", "The receipt is from {v}.", "Bought at {v}."),
        ),
        enum_field(
            "category",
            "the kind of expense",
            ("Category", "Type"),
            {
                "travel": ("It was for the train.", "It covers a flight to a client."),
                "meals": ("We had lunch with a client.", "It was dinner for the team."),
                "software": ("It is a licence for a program.", "It pays a year of an app."),
                "office": ("It bought paper and toner.", "It was for pens and folders."),
            },
        ),
        money_field(
            "amount",
            "the sum spent",
            amount(8, 1900),
            ("Amount", "Sum", "Spent"),
            ("It came to {v}.", "The slip shows {v}.", "{v} was paid."),
        ),
        CURRENCY,
        date_field(
            "date",
            "the day it was spent",
            ("Date", "Day", "Paid on"),
            ("That was on {v}.", "The slip is dated {v}.", "Paid on {v}."),
        ),
        text_field(
            "project",
            "the project it is booked on, or null",
            code("PRJ-###"),
            ("Project", "Book on", "Cost centre"),
            ("Book it on {v}.", "It belongs to project {v}."),
            optional=True,
        ),
    ),
    (
        ("amount", "A deposit of {v} was returned and does not count."),
        ("amount", "The limit for such things is {v}."),
        ("date", "I hand this in on {v}."),
        ("date", "The next pay run is on {v}."),
        ("project", "(Not {v}, that one is closed.)"),
        ("employee", "{v} has signed the form."),
        ("merchant", "The offer of {v} was dearer."),
    ),
)

KINDS = (SUPPORT, APPOINTMENT, EXPENSE)
