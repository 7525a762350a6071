"""Word problems about things that are bought and sold."""

from generators.stories import Draw, Story


def market(d: Draw) -> Story:
    (who,) = d.names(1)
    a, b = d.num(3, 9), d.num(2, 7)
    p, q = d.price(1, 6), d.price(2, 11)
    x, y = d.some(("melons", "jars of honey", "loaves", "cheeses", "bunches of herbs"), 2)
    total = f"({a}*{p}+{b}*{q})"
    cut, off = d.num(5, 30, 5), d.num(2, 8)
    setup = d.pick(
        f"At the market {who} buys {a} {x} at {p} each and {b} {y} at {q} each.",
        f"{who} fills a basket: {a} {x} ({p} apiece) and {b} {y} ({q} apiece).",
        f"{x.capitalize()} cost {p} each and {y} cost {q} each. {who} takes {a} of the"
        f" former and {b} of the latter.",
    )
    kind = d.pick("plain", "percent", "voucher", "change")
    if kind == "plain":
        text, expr = f"What does {who} pay altogether?", total
    elif kind == "percent":
        text = f"The stall takes {cut}% off everything today. How much is due?"
        expr = f"{total}*(100-{cut})/100"
    elif kind == "voucher":
        text = f"A voucher takes {off} off the bill. How much is left to pay?"
        expr = f"{total}-{off}"
    else:
        note = d.pick(100, 150, 200)
        text = f"{who} hands over {note}. How much comes back as change?"
        expr = f"{note}-{total}"
    idle = (f"The stall next door sells eggs at {d.num(3, 6)} a dozen.",)
    return Story(
        "market",
        d.tell(setup, text, idle=idle),
        expr,
        (f"{total}*(100+{cut})/100", total, f"{a}*{q}+{b}*{p}", f"{p}+{q}", f"{total}+{off}"),
        money=True,
        idle_numbers=d.idle_numbers,
    )


def restaurant(d: Draw) -> Story:
    n, m = d.num(3, 8), d.num(2, 6)
    p, q, tip = d.price(9, 24), d.price(4, 9), d.num(5, 20, 5)
    who, other = d.names(2)
    bill = f"({n}*{p}+{m}*{q})"
    tipped = d.maybe()
    setup = d.pick(
        f"{n} colleagues go out to eat. Everyone takes the menu at {p}, and {m} desserts at"
        f" {q} are added.",
        f"{who} and friends, {n} people in all, order a main course each ({p}) and {m}"
        f" bottles of water ({q} a bottle).",
        f"A table of {n} is served {n} set lunches at {p} and, later, {m} salads at {q}.",
    )
    extra = f"They leave a tip of {tip}% on the bill." if tipped else ""
    text = d.pick(
        "The cost is shared equally. What does each person pay?",
        "Everybody pays the same share. How much is one share?",
    )
    full = f"{bill}*(100+{tip})/100" if tipped else bill
    idle = (f"{other} had booked the table {d.num(2, 9)} days before.", "They stay 2 hours.")
    return Story(
        "restaurant",
        d.tell(setup, extra, text, idle=idle),
        f"{full}/{n}",
        (f"{bill}/{n}", full, f"{p}+{q}", f"{bill}*(100-{tip})/100/{n}"),
        money=True,
        idle_numbers=d.idle_numbers,
    )


def craft_stall(d: Draw) -> Story:
    (who,) = d.names(1)
    made, unsold, cost = d.num(25, 60), d.num(3, 12), d.price(1, 4)
    price, fee = d.num(6, 15), d.num(20, 60, 5)
    thing = d.pick("candles", "mugs", "scarves", "wooden toys", "bars of soap")
    sold = f"({made}-{unsold})"
    setup = d.pick(
        f"{who} makes {made} {thing}; the material for one costs {cost}.",
        f"To make {made} {thing}, {who} spends {cost} on each.",
    )
    sale = d.pick(
        f"At the fair all but {unsold} are sold, at {price} each.",
        f"{made - unsold} of them find a buyer at {price} apiece.",
    )
    rent = d.maybe(0.6)
    extra = d.pick(f"The stall costs {fee}.", f"A place at the fair is {fee}.") if rent else ""
    known = "all but" in sale
    income = f"{sold}*{price}" if known else f"{made - unsold}*{price}"
    return Story(
        "craft-stall",
        d.tell(
            setup,
            sale,
            extra,
            d.pick("What is the profit?", f"How much does {who} gain, all costs taken off?"),
            idle=(
                f"The fair has {d.num(30, 90)} stalls.",
                f"It rains for {d.num(2, 5)} hours.",
            ),
        ),
        f"{income}-{made}*{cost}" + (f"-{fee}" if rent else ""),
        (
            f"{income}-{sold}*{cost}" + (f"-{fee}" if rent else ""),
            income,
            f"{made}*{price}-{made}*{cost}",
            f"{income}-{made}*{cost}+{fee}",
        ),
        money=True,
        idle_numbers=d.idle_numbers,
    )


def concert(d: Draw) -> Story:
    adults, children = d.num(40, 160), d.num(15, 90)
    p, q, hall = d.num(8, 22), d.num(3, 7), d.num(150, 400, 10)
    gift = d.num(10, 50, 5)
    show = d.pick("school concert", "film night", "puppet show", "choir evening")
    income = f"({adults}*{p}+{children}*{q})"
    setup = d.pick(
        f"For a {show}, {adults} adults pay {p} each and {children} children {q} each.",
        f"Tickets for the {show} are {p} for adults and {q} for children; {adults} adults and"
        f" {children} children come.",
        f"{adults + children} visitors come to a {show}. The {children} children among them"
        f" pay {q}, all others {p}.",
    )
    if setup.startswith(f"{adults + children} visitors"):
        income = f"(({adults + children}-{children})*{p}+{children}*{q})"
    rent, share = d.maybe(), d.maybe()
    money = f"{income}-{hall}" if rent else income
    expr = f"({money})*{gift}/100" if share else money
    extra = f"Renting the hall takes {hall} of that." if rent else ""
    ask = (
        f"{gift}% of what remains goes to the animal shelter. How much is that?"
        if share and rent
        else f"{gift}% of the takings go to the animal shelter. How much is that?"
        if share
        else "How much money is there in the end?"
    )
    return Story(
        "concert",
        d.tell(setup, extra, ask, idle=(f"The show lasts {d.num(60, 110, 5)} minutes.",)),
        expr,
        (income, f"{income}*{gift}/100", f"{income}+{hall}", f"({adults}+{children})*{p}"),
        money=True,
        idle_numbers=d.idle_numbers,
    )


def exchange(d: Draw) -> Story:
    (who,) = d.names(1)
    amount, rate = d.num(200, 900, 10), d.pick("1.10", "1.25", "1.20", "1.05", "1.15")
    fee, spent = d.num(3, 12), d.num(50, 160, 5)
    share = d.pick(1, 2, 4, 5)
    percent = d.maybe()
    setup = d.pick(
        f"{who} changes {amount} euros into dollars at {rate} dollars per euro.",
        f"One euro buys {rate} dollars. {who} has {amount} euros to change.",
    )
    cost = (
        f"The bank first keeps {share}% of the euros."
        if percent
        else f"The bank first keeps a fee of {fee} euros."
    )
    net = f"{amount}*(100-{share})/100" if percent else f"({amount}-{fee})"
    spend = d.maybe()
    later = f"On the journey {spent} dollars are spent." if spend else ""
    question = "are left" if spend else f"does {who} get"
    return Story(
        "exchange",
        d.tell(
            setup,
            cost,
            later,
            f"How many dollars {question}?",
            idle=(f"Last year the rate was {d.pick('1.08', '1.12', '1.18')}.",),
        ),
        f"{net}*{rate}" + (f"-{spent}" if spend else ""),
        (
            f"{amount}*{rate}",
            f"{net}/{rate}",
            f"{amount}*{rate}-{fee}",
            f"{net}*{rate}+{spent}",
        ),
        money=True,
        idle_numbers=d.idle_numbers,
    )


FAMILIES = (market, restaurant, craft_stall, concert, exchange)
