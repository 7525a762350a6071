"""Texts between firms: their fields and the remarks that get in the way."""

from random import Random
from typing import Any

from generators import extraction_writing as writing
from generators.extraction_fields import (
    CARRIERS,
    CITIES,
    CURRENCY,
    FIRMS,
    GOODS,
    PEOPLE,
    Field,
    Kind,
    amount,
    between,
    code,
    count_field,
    date_field,
    enum_field,
    money_field,
    one_of,
    text_field,
)


def say_weight(rng: Random, value: Any, _: str) -> tuple[str, bool]:
    return writing.weight_text(rng, value)


ORDER = Kind(
    "order",
    ("Purchase order", "New order", "Order by e-mail"),
    (
        text_field(
            "order_number",
            "our number of this order",
            code("PO-#####"),
            ("Order no.", "PO", "Order reference"),
            ("This order runs under {v}.", "Please quote {v} for this order.", "Order {v}."),
        ),
        text_field(
            "customer",
            "the company that orders",
            one_of(*FIRMS),
            ("Customer", "Ordered by", "Account"),
            ("We, {v}, place the order.", "The order is from {v}.", "Bill it to us, {v}."),
        ),
        text_field(
            "item",
            "the article ordered, in the singular as in the text",
            one_of(*GOODS),
            ("Article", "Item", "Product"),
            ("The article is: {v}.", "What we want is the model '{v}'.", "Article: {v}."),
        ),
        count_field(
            "quantity",
            "how many pieces",
            between(2, 48),
            ("Qty", "Pieces", "Quantity"),
            ("We need {v} of them.", "Please send {v} pieces.", "The quantity is {v}."),
        ),
        money_field(
            "unit_price",
            "the price of one piece",
            amount(15, 900),
            ("Unit price", "Price each", "Per piece"),
            (
                "The agreed price is {v} apiece.",
                "One costs us {v}.",
                "You confirmed {v} for each.",
            ),
        ),
        CURRENCY,
        date_field(
            "delivery_date",
            "the wanted day of delivery, or null",
            ("Deliver by", "Wanted on", "Delivery"),
            ("We expect delivery on {v}.", "It has to be here on {v}.", "Delivery: {v}."),
            optional=True,
        ),
        enum_field(
            "delivery",
            "the kind of delivery",
            ("Shipping", "Mode"),
            {
                "standard": (
                    "Ordinary delivery will do.",
                    "There is no rush with the transport.",
                ),
                "express": (
                    "Use the fast service.",
                    "Please have it sent by courier overnight.",
                ),
                "pickup": ("Our driver will fetch it.", "We collect it at your gate."),
            },
        ),
    ),
    (
        ("unit_price", "Your first offer of {v} is off the table."),
        ("unit_price", "Last year we still paid {v} for one."),
        ("delivery_date", "The order before this one came on {v}, all fine."),
        ("delivery_date", "Our warehouse is closed for stocktaking on {v}."),
        ("order_number", "(Order {v} from spring is closed.)"),
        ("quantity", "A catalogue page lists a pack of {v}, which we do not want."),
    ),
)

INVOICE = Kind(
    "invoice",
    ("Invoice", "Bill", "Statement of account"),
    (
        text_field(
            "invoice_number",
            "the number of this invoice",
            code("INV-####-??"),
            ("Invoice no.", "Document", "Our number"),
            (
                "This is invoice {v}.",
                "We bill you under {v}.",
                "The document has the number {v}.",
            ),
        ),
        text_field(
            "supplier",
            "who sends the invoice",
            one_of(*FIRMS),
            ("From", "Supplier", "Issued by"),
            ("It is issued by {v}.", "{v} thanks you for your custom.", "Payee: {v}."),
        ),
        date_field(
            "issue_date",
            "the day of the invoice",
            ("Date", "Issued", "Invoice date"),
            ("It was issued on {v}.", "Date of this document: {v}."),
        ),
        date_field(
            "due_date",
            "the last day to pay, or null",
            ("Due", "Pay by", "Payable until"),
            ("Please pay no later than {v}.", "The money should be with us by {v}."),
            optional=True,
        ),
        money_field(
            "subtotal",
            "the sum before tax",
            amount(80, 6000),
            ("Net", "Subtotal", "Before tax"),
            ("Before tax that makes {v}.", "The net sum is {v}.", "Goods and work: {v}."),
        ),
        money_field(
            "total",
            "the sum to be paid, tax included",
            amount(80, 6000),
            ("Total", "Amount payable", "Gross"),
            ("You owe {v} in all.", "With tax it is {v}.", "The amount to transfer is {v}."),
        ),
        CURRENCY,
        text_field(
            "purchase_order",
            "the customer's order number, or null",
            code("PO-#####"),
            ("Your order", "Customer PO", "Your ref."),
            ("It belongs to your order {v}.", "You ordered under {v}."),
            optional=True,
        ),
    ),
    (
        ("total", "The balance of last month, {v}, is settled."),
        ("total", "If you had paid at once, {v} would have done."),
        ("issue_date", "The work itself was done on {v}."),
        ("due_date", "Our bank changes its system on {v}."),
        ("invoice_number", "It replaces the draft {v}."),
        ("purchase_order", "(Our internal file: {v}, not an order of yours.)"),
    ),
)

SHIPPING = Kind(
    "shipping-note",
    ("Dispatch note", "Consignment", "Shipping advice"),
    (
        text_field(
            "tracking_number",
            "the number to follow the consignment with",
            code("??########"),
            ("Tracking", "Consignment no.", "Waybill"),
            ("Follow it under {v}.", "The waybill is {v}.", "It travels as {v}."),
        ),
        enum_field(
            "carrier",
            "who carries it",
            ("Carrier", "Forwarder", "Via"),
            {name: (f"{name} carries it.", f"It was handed to {name}.") for name in CARRIERS},
        ),
        text_field(
            "origin",
            "the city it leaves from",
            one_of(*CITIES),
            ("Ships from", "Origin", "Loaded in"),
            ("It leaves from our depot in {v}.", "Loaded in {v}.", "The goods start in {v}."),
        ),
        text_field(
            "recipient",
            "who gets it",
            one_of(*PEOPLE),
            ("To", "Recipient", "Consignee"),
            ("It is for {v}.", "{v} will receive it.", "Addressed to {v}."),
        ),
        count_field(
            "parcels",
            "how many parcels",
            between(2, 18),
            ("Parcels", "Packages", "Colli"),
            ("There are {v} parcels.", "The goods fill {v} boxes.", "{v} packages in all."),
        ),
        Field(
            "weight_kg",
            "the weight of everything in kilograms, a number",
            {"type": "number", "exclusiveMinimum": 0},
            lambda rng: rng.randint(5, 400) / 10,
            say_weight,
            ("Weight", "Gross weight", "Scale"),
            ("All together weighs {v}.", "The scale shows {v}.", "Weight of the lot: {v}."),
        ),
        date_field(
            "ship_date",
            "the day it leaves",
            ("Sent", "Dispatch", "Left on"),
            ("It goes out on {v}.", "It left us on {v}.", "Day of dispatch: {v}."),
        ),
        date_field(
            "expected_date",
            "the day it should arrive, or null",
            ("ETA", "Expected", "Arrival"),
            ("It should arrive on {v}.", "Expect it on {v}.", "The driver plans {v} for you."),
            optional=True,
        ),
    ),
    (
        ("ship_date", "The order had come in on {v}."),
        ("expected_date", "On {v} there is no delivery because of a holiday."),
        ("tracking_number", "(Do not mix it up with {v}, which is delivered.)"),
        ("parcels", "The truck as a whole takes {v} parcels of several customers."),
        ("recipient", "Questions go to {v} in our office."),
        ("weight_kg", "Without packing it would be {v}."),
        ("origin", "The route passes {v}."),
    ),
)

KINDS = (ORDER, INVOICE, SHIPPING)
