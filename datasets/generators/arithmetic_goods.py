"""Word problems about goods that are made, packed and counted."""

from generators.stories import Draw, Story


def bakery(d: Draw) -> Story:
    trays, per, box = d.num(6, 18), d.pick(12, 16, 20, 24, 30), d.pick(4, 6, 8, 10)
    burnt, sold, pay = d.num(4, 20), d.num(20, 80, 5), d.num(4, 9)
    thing = d.pick("rolls", "biscuits", "muffins", "pretzels", "tartlets")
    setup = d.pick(
        f"A bakery bakes {trays} trays of {per} {thing}.",
        f"{trays} trays come out of the oven with {per} {thing} on each.",
    )
    bad = f"{burnt} of them are burnt and thrown away." if d.maybe() else ""
    good = f"({trays}*{per}-{burnt})" if bad else f"{trays}*{per}"
    kind = d.pick("boxes", "left", "money")
    if kind == "boxes":
        expr = f"{good}/{box}"
        ask = f"The others go into boxes of {box}. How many boxes is that?"
        ask = ask if bad else f"They are packed in boxes of {box}. How many boxes does it take?"
    elif kind == "left":
        expr = f"{good}*(100-{sold})/100"
        ask = f"Of the good ones {sold}% are sold by noon. How many are left?"
        ask = ask if bad else f"By noon {sold}% are sold. How many are left?"
    else:
        expr = f"{good}/{box}*{pay}"
        ask = f"Bags of {box} sell at {pay} a bag. What do they bring if none is left over?"
    return Story(
        "bakery",
        d.tell(setup, bad, ask, idle=(f"The oven is at {d.num(180, 230, 10)} degrees.",)),
        expr,
        (f"{trays}*{per}/{box}", f"{good}*{sold}/100", good, f"({trays}+{per})*{box}"),
        whole=(expr, f"{good}/{box}") if kind != "left" else (expr,),
        idle_numbers=d.idle_numbers,
    )


def library(d: Draw) -> Story:
    shelves, per, lent = d.num(12, 40), d.num(25, 60), d.num(40, 190)
    back, new, gone = d.num(10, 38), d.num(20, 90), d.num(5, 25, 5)
    setup = d.pick(
        f"A library has {shelves} shelves with {per} books on each.",
        f"On each of the {shelves} shelves of a school library stand {per} books.",
    )
    month = d.pick(
        f"During the month {lent} are lent out and {back} of these come back.",
        f"Readers take {lent} away; {back} are returned.",
    )
    total = f"{shelves}*{per}-{lent}+{back}"
    events = d.pick("none", "new", "old")
    if events == "new":
        extra, expr = f"A gift adds {new} books.", f"{total}+{new}"
    elif events == "old":
        extra = f"Before that, {gone}% of the stock had been given to another town."
        expr = f"{shelves}*{per}*(100-{gone})/100-{lent}+{back}"
    else:
        extra, expr = "", total
    return Story(
        "library",
        d.tell(
            setup,
            month,
            extra,
            d.pick(
                "How many books are there now?", "How many stand on the shelves at the end?"
            ),
            idle=(
                f"It opens {d.num(3, 6)} days a week.",
                f"A card costs {d.num(5, 20)} a year.",
            ),
        ),
        expr,
        (
            f"{shelves}*{per}-{lent}",
            f"{shelves}*{per}-{lent}-{back}",
            f"{shelves}*{per}+{back}",
        ),
        whole=(f"{shelves}*{per}*(100-{gone})/100",) if events == "old" else (),
        idle_numbers=d.idle_numbers,
    )


def orchard(d: Draw) -> Story:
    rows, trees, kilos = d.num(5, 20), d.num(8, 30), d.num(15, 60, 5)
    spoilt, crate, kept = d.num(5, 25, 5), d.pick(8, 10, 12, 15, 20), d.num(20, 90, 10)
    fruit = d.pick("apples", "pears", "plums", "cherries", "oranges")
    setup = d.pick(
        f"An orchard has {rows} rows of {trees} trees; a tree gives {kilos} kg of {fruit}.",
        f"{rows} rows with {trees} trees each are harvested, {kilos} kg of {fruit} per tree.",
    )
    harvest = f"{rows}*{trees}*{kilos}"
    loss = d.maybe(0.6)
    bad = f"{spoilt}% of the harvest is spoilt." if loss else ""
    good = f"{harvest}*(100-{spoilt})/100" if loss else harvest
    kind = d.pick("crates", "rest", "tons")
    if kind == "crates":
        expr, conversions = f"{good}/{crate}", 0
        ask = f"The good fruit goes into crates of {crate} kg. How many crates are filled?"
    elif kind == "rest":
        expr, conversions = f"{good}-{kept}", 0
        ask = f"The farmer keeps {kept} kg of the good fruit. How many kg can be sold?"
    else:
        expr, conversions = f"{good}/1000", 1
        ask = "How many tonnes of good fruit is that?"
    return Story(
        "orchard",
        d.tell(setup, bad, ask, idle=(f"The oldest tree is {d.num(40, 90)} years old.",)),
        expr,
        (f"{harvest}/{crate}", f"{harvest}*{spoilt}/100", harvest, f"{rows}*{kilos}-{kept}"),
        whole=(expr,) if kind == "crates" else (),
        idle_numbers=d.idle_numbers,
        conversions=conversions,
    )


def recipe(d: Draw) -> Story:
    (who,) = d.names(1)
    base, guests, grams = d.pick(4, 5, 6, 8), d.num(9, 40), d.num(120, 600, 20)
    have, pack = d.num(100, 700, 50), d.pick(250, 500)
    ware = d.pick("flour", "rice", "lentils", "sugar", "oats")
    setup = d.pick(
        f"A recipe for {base} people takes {grams} g of {ware}. {who} cooks for {guests}.",
        f"{who} expects {guests} guests. For {base} people one needs {grams} g of {ware}.",
    )
    need = f"{grams}/{base}*{guests}"
    kind = d.pick("need", "buy", "packs")
    home = f"There are {have} g in the cupboard."
    if kind == "need":
        home, expr, conversions = "", f"{need}/1000", 1
        ask = d.pick(
            f"How many kg of {ware} are needed?", f"What amount of {ware} is that in kg?"
        )
    elif kind == "buy":
        expr, conversions = f"{need}-{have}", 0
        ask = d.pick("How many grams must be bought?", "How many grams are lacking?")
    else:
        expr, conversions = f"({need}-{have})/{pack}", 0
        ask = (
            f"A packet holds {pack} g. How many packets must be bought so that nothing is over?"
        )
    return Story(
        "recipe",
        d.tell(setup, home, ask, idle=(f"It cooks for {d.num(25, 70, 5)} minutes.",)),
        expr,
        (need, f"{grams}*{guests}-{have}", f"{need}+{have}", f"{grams}*{guests}/1000"),
        whole=(expr,) if kind == "packs" else (),
        idle_numbers=d.idle_numbers,
        conversions=conversions,
    )


def warehouse(d: Draw) -> Story:
    pallets, cartons, units = d.num(3, 12), d.num(12, 40, 2), d.num(6, 24, 2)
    broken, gone, share = d.num(2, 19), d.num(30, 280, 10), d.pick(10, 20, 25, 40, 50)
    ware = d.pick("bottles", "lamps", "jars", "headsets", "filters")
    setup = d.pick(
        f"{pallets} pallets arrive with {cartons} cartons each, {units} {ware} in a carton.",
        f"A delivery has {pallets} pallets. On a pallet stand {cartons} cartons, and a carton"
        f" holds {units} {ware}.",
    )
    stock = f"{pallets}*{cartons}*{units}"
    kind = d.pick("cartons", "units", "sale", "both")
    if kind == "cartons":
        expr = f"({pallets}*{cartons}-{broken})*{units}"
        ask = f"{broken} whole cartons got wet and are sent back. How many {ware} remain?"
    elif kind == "units":
        expr = f"{stock}-{broken}-{gone}"
        ask = f"{broken} {ware} are broken, {gone} are sold at once. How many are in stock?"
    elif kind == "sale":
        expr = f"{stock}*(100-{share})/100-{gone}"
        ask = f"{share}% go to a shop, then {gone} {ware} to another. How many are left?"
    else:
        expr = f"({pallets}*{cartons}-{broken})*{units}-{gone}"
        ask = f"{broken} cartons are damaged, {gone} other {ware} are sold: how many remain?"
    return Story(
        "warehouse",
        d.tell(setup, ask, idle=(f"The gate closes at {d.num(5, 8)} in the evening.",)),
        expr,
        (
            stock,
            f"{stock}-{broken}",
            f"{pallets}*{cartons}-{broken}",
            f"{stock}-{broken}+{gone}",
        ),
        whole=(f"{stock}*(100-{share})/100",) if kind == "sale" else (),
        idle_numbers=d.idle_numbers,
    )


def school_trip(d: Draw) -> Story:
    classes, pupils, per = d.num(3, 8), d.num(18, 30), d.pick(6, 8, 9, 10, 12)
    seats, fare, flat = d.pick(20, 24, 30, 33, 44, 48, 50), d.num(4, 12), d.num(60, 240, 10)
    place = d.pick("zoo", "castle", "museum of science", "harbour")
    adults = f"{classes}*{pupils}/{per}"
    all_of = f"({classes}*{pupils}+{adults})"
    setup = d.pick(
        f"{classes} classes of {pupils} pupils go to the {place}, with one adult for every"
        f" {per} pupils.",
        f"For a visit to the {place} one adult is needed per {per} pupils. {classes} classes"
        f" with {pupils} pupils each take part.",
    )
    kind = d.pick("people", "buses", "money", "free")
    whole = [adults]
    if kind == "people":
        expr = all_of[1:-1]
        ask = "How many people set out in all?"
    elif kind == "buses":
        expr = f"{all_of}/{seats}"
        whole.append(expr)
        ask = f"How many buses of {seats} seats do they fill to the last seat?"
    elif kind == "money":
        expr = f"{classes}*{pupils}*{fare}+{flat}"
        ask = f"Pupils pay {fare} each, a guide costs {flat}, adults are free. What is the sum?"
    else:
        room = d.num(3, 9) * 50
        expr = f"{room}-{all_of}"
        ask = f"The train has {room} seats. How many stay empty?"
    return Story(
        "school-trip",
        d.tell(setup, ask, idle=(f"The pupils are {d.num(8, 15)} years old.",)),
        expr,
        (
            f"{classes}*{pupils}",
            f"{classes}*{pupils}/{seats}",
            f"{classes}*({pupils}+1)",
            adults,
        ),
        whole=tuple(whole),
        idle_numbers=d.idle_numbers,
    )


FAMILIES = (bakery, library, orchard, recipe, warehouse, school_trip)
