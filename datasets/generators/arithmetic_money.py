"""Word problems about wages, savings, rents and contracts."""

from generators.stories import Draw, Story


def phone_plan(d: Draw) -> Story:
    fee, included, extra = d.num(9, 29), d.num(50, 200, 10), d.num(15, 90, 5)
    rate, months = d.pick("0.10", "0.15", "0.20", "0.25"), d.num(2, 8)
    (who,) = d.names(1)
    used = included + extra
    setup = d.pick(
        f"A phone plan costs {fee} a month with {included} minutes included; each further"
        f" minute costs {rate}.",
        f"{who} pays {fee} per month for {included} minutes of calls. Beyond that a minute is"
        f" billed at {rate}.",
        f"With {who}'s contract, {included} minutes are free every month. The monthly charge"
        f" is {fee}, and extra minutes are {rate} each.",
    )
    middle = d.pick(
        f"In each of {months} months {who} talks for {used} minutes.",
        f"For {months} months in a row the bill lists {used} minutes a month.",
    )
    discount = d.num(3, 9) if d.maybe(0.4) else 0
    voucher = f"A one-time credit of {discount} is taken off the sum." if discount else ""
    text = d.pick("What do these months cost in total?", "How much is paid for the whole time?")
    all_months = f"{months}*({fee}+({used}-{included})*{rate})"
    return Story(
        "phone-plan",
        d.tell(
            setup, middle, voucher, text, idle=(f"Text messages, {d.num(12, 60)}, are free.",)
        ),
        f"{all_months}-{discount}" if discount else all_months,
        (
            f"{months}*({fee}+{used}*{rate})",
            f"{fee}+({used}-{included})*{rate}",
            f"{months}*{fee}+({used}-{included})*{rate}",
        ),
        money=True,
        idle_numbers=d.idle_numbers,
    )


def wages(d: Draw) -> Story:
    (who,) = d.names(1)
    wage, normal, over = d.num(14, 32, 2), d.num(30, 40), d.num(2, 9)
    tax = d.num(10, 30, 5)
    gross = f"({normal}*{wage}+{over}*{wage}*1.5)"
    setup = d.pick(
        f"{who} earns {wage} an hour. Overtime is paid one and a half times as much.",
        f"The hourly wage at the depot is {wage}; for every hour of overtime {who} gets 50%"
        " more than that.",
        f"An hour of {who}'s work is paid with {wage}, an hour of overtime with half as much"
        " again.",
    )
    week = d.pick(
        f"This week brought {normal} regular hours and {over} hours of overtime.",
        f"Last week {who} worked {normal + over} hours, {over} of them as overtime.",
    )
    if week.startswith("Last"):
        gross = f"(({normal + over}-{over})*{wage}+{over}*{wage}*1.5)"
    taxed = d.maybe()
    cut = f"{tax}% of the pay is withheld as tax." if taxed else ""
    text = d.pick("How much is paid out?", f"What does {who} receive for the week?")
    return Story(
        "wages",
        d.tell(
            setup, week, cut, text, idle=(f"{who} has been there for {d.num(2, 15)} years.",)
        ),
        f"{gross}*(100-{tax})/100" if taxed else gross,
        (
            gross,
            f"({normal}+{over})*{wage}",
            f"({normal}*{wage}+{over}*{wage})*(100-{tax})/100",
            f"({normal}+{over})*{wage}*1.5",
        ),
        money=True,
        idle_numbers=d.idle_numbers,
    )


def savings(d: Draw) -> Story:
    (who,) = d.names(1)
    have, weekly, weeks = d.num(20, 180, 5), d.num(8, 35), d.num(5, 14)
    spent, goal = d.num(12, 70), d.num(700, 1200, 10)
    thing = d.pick("a bicycle", "a guitar", "a camera", "a trip to the sea", "a telescope")
    setup = d.pick(
        f"{who} wants to buy {thing} for {goal} and has {have} so far.",
        f"For {thing} that costs {goal}, {who} starts with {have} in the tin.",
    )
    plan = d.pick(
        f"Every week {weekly} is put aside, for {weeks} weeks.",
        f"Over the next {weeks} weeks {who} saves {weekly} a week.",
    )
    out = d.maybe(0.6)
    gift = d.num(20, 90, 5) if d.maybe(0.4) else 0
    later = f"Then {spent} has to go on a repair." if out else ""
    more = f"Grandmother adds {gift}." if gift else ""
    saved = (
        f"{have}+{weekly}*{weeks}" + (f"-{spent}" if out else "") + (f"+{gift}" if gift else "")
    )
    return Story(
        "savings",
        d.tell(
            setup,
            plan,
            *d.some((later, more), 2),
            d.pick("How much is still missing?", "How far is that from the price?"),
            idle=(f"{who} is {d.num(12, 17)} years old.",),
        ),
        f"{goal}-({saved})",
        (saved, f"{goal}-{weekly}*{weeks}", f"{goal}-({have}+{weekly}*{weeks}+{spent})"),
        idle_numbers=d.idle_numbers,
    )


def flat_share(d: Draw) -> Story:
    who, big, other = d.names(3)
    rent, power, net = d.num(900, 2100, 30), d.num(60, 150, 6), d.num(24, 48, 6)
    people, more = d.num(3, 5), d.num(40, 120, 10)
    setup = d.pick(
        f"{people} people share a flat: {who}, {big} and {other} are among them. The rent is"
        f" {rent}.",
        f"A flat for {people} costs {rent} a month. {who}, {big} and {other} live in it"
        + (" alone." if people == 3 else f" with {people - 3} more."),
    )
    costs = f"Electricity is {power}" + (f" and the internet {net}." if d.maybe() else ".")
    sums = f"{rent}+{power}" + (f"+{net}" if "internet" in costs else "")
    room = d.maybe()
    balcony = (
        f"{big} has the large room and pays {more} more than each of the others."
        if room
        else ""
    )
    months = d.num(2, 11) if d.maybe(0.4) else 1
    time = "a month" if months == 1 else f"for {months} months"
    base = f"({sums}-{more})/{people}" if room else f"({sums})/{people}"
    return Story(
        "flat-share",
        d.tell(
            setup,
            costs,
            balcony or "All of it is split equally.",
            f"How much does {who} pay {time}?",
            idle=(f"The house was built {d.num(20, 90)} years ago.",),
        ),
        base if months == 1 else f"{base}*{months}",
        (f"({sums})/{people}*{months}", f"({sums}+{more})/{people}", f"{rent}/{people}", sums),
        money=True,
        cents=(base,),
        idle_numbers=d.idle_numbers,
    )


def instalments(d: Draw) -> Story:
    (who,) = d.names(1)
    price, down, months = d.num(600, 3000, 50), d.num(10, 40, 5), d.num(6, 24, 2)
    fee, each = d.num(2, 9), d.num(60, 200, 5)
    thing = d.pick("sofa", "laptop", "washing machine", "used scooter", "piano")
    setup = d.pick(
        f"A {thing} costs {price}. {who} pays {down}% at once and the rest in {months} equal"
        " monthly instalments.",
        f"{who} buys a {thing} for {price}: a deposit of {down}%, then {months} equal"
        " instalments, one a month.",
    )
    kind = d.pick("rate", "rate-fee", "offer")
    rest = f"{price}*(100-{down})/100"
    if kind == "rate":
        expr, ask = f"{rest}/{months}", "How much is one instalment?"
    elif kind == "rate-fee":
        expr = f"{rest}/{months}+{fee}"
        ask = f"A handling fee of {fee} is added to each. What is due every month?"
    else:
        setup = (
            d.pick(
                f"A {thing} costs {price} when paid at once.",
                f"{who} can take home a {thing} for {price} in cash.",
            )
            + f" Or: {down}% now and then {months} times {each}."
        )
        expr = f"{price}*{down}/100+{months}*{each}-{price}"
        ask = "How much more does the second way cost?"
    return Story(
        "instalments",
        d.tell(setup, ask, idle=(f"The warranty runs for {d.num(2, 5)} years.",)),
        expr,
        (f"{price}/{months}", rest, f"{price}*{down}/100/{months}", f"{months}*{each}"),
        money=True,
        cents=(f"{rest}/{months}",) if kind != "offer" else (),
        idle_numbers=d.idle_numbers,
    )


FAMILIES = (phone_plan, wages, savings, flat_share, instalments)
