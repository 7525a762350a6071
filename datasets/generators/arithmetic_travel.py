"""Word problems about distances, times and consumption."""

from generators.stories import Draw, Story


def hours_of(count: int) -> str:
    return "1 hour" if count == 1 else f"{count} hours"


def trip(d: Draw) -> Story:
    (who,) = d.names(1)
    v, w, t, u = d.num(60, 120, 10), d.num(40, 90, 5), d.num(2, 4), d.num(1, 3)
    whole = d.num(600, 900, 10)
    setup = d.pick(
        f"{who} drives {t} hours at {v} km/h and then {hours_of(u)} at {w} km/h.",
        f"A lorry goes at {v} km/h for {t} hours. On the country road it makes {w} km/h for"
        f" another {hours_of(u)}.",
        f"For the first {t} hours of a journey the bus keeps to {v} km/h, for the next {u} to"
        f" {w} km/h.",
    )
    way = f"{v}*{t}+{w}*{u}"
    kind = d.pick("sum", "left", "mean", "back")
    if kind == "sum":
        expr, ask = way, "How many kilometres is that?"
    elif kind == "left":
        expr = f"{whole}-({way})"
        ask = f"The whole way is {whole} km. How many kilometres remain?"
    elif kind == "mean":
        expr, ask = f"({way})/({t}+{u})", "What is the average speed in km/h?"
    else:
        hours = d.num(3, 6)
        expr = f"({way})/{hours}"
        ask = f"The way back takes {hours} hours. What is its average speed in km/h?"
    return Story(
        "trip",
        d.tell(setup, ask, idle=(f"The tank holds {d.num(45, 70, 5)} litres.",)),
        expr,
        (f"({v}+{w})/2", f"({v}+{w})*({t}+{u})", way, f"{v}*{u}+{w}*{t}", f"{whole}-{v}*{t}"),
        idle_numbers=d.idle_numbers,
    )


def reading(d: Draw) -> Story:
    (who,) = d.names(1)
    pages, a, n = d.num(280, 640, 10), d.num(12, 30), d.num(4, 9)
    b, m = d.num(20, 45), d.num(3, 10)
    setup = d.pick(
        f"A novel has {pages} pages. {who} reads {a} pages a day for {n} days.",
        f"{who} starts a book of {pages} pages and manages {a} pages on each of the first"
        f" {n} days.",
    )
    kind = d.pick("left", "days", "pace")
    so_far = f"{pages}-{a}*{n}"
    if kind == "left":
        expr = f"{so_far}-{b}*{m}"
        ask = f"Then it is {b} pages a day for {m} days. How many pages are left?"
    elif kind == "days":
        expr = f"({so_far})/{b}"
        ask = d.pick(
            f"From then on it is {b} a day. How many more days does the rest take?",
            f"The rest is read at {b} pages a day. How many days are needed for it?",
        )
    else:
        expr = f"({so_far})/{m}"
        ask = d.pick(
            f"The book is due in {m} more days. How many pages a day must be read now?",
            f"{m} days of the holiday remain. What pace, in pages per day, just suffices?",
        )
    return Story(
        "reading",
        d.tell(setup, ask, idle=(f"The first edition is from {d.num(1890, 1990)}.",)),
        expr,
        (so_far, f"{pages}/{b}", f"{pages}/{m}", f"{pages}-{a}-{b}", f"({so_far})/{a}"),
        whole=(expr,),
        idle_numbers=d.idle_numbers,
    )


def timetable(d: Draw) -> Story:
    lessons, minutes, pauses = d.num(4, 7), d.num(40, 60, 5), d.num(10, 20, 5)
    lunch, start = d.num(30, 60, 5), d.num(7, 9)
    event = d.pick("workshop", "school day", "training", "seminar")
    unit = "sessions" if event in {"workshop", "seminar"} else "lessons"
    setup = d.pick(
        f"A {event} has {lessons} {unit} of {minutes} minutes with a pause of {pauses} minutes"
        " between one and the next.",
        f"The {event} begins at {start}:00. There are {lessons} {unit}, {minutes} minutes each,"
        f" and {pauses} minutes of pause after each but the last.",
    )
    meal = d.maybe()
    food = f"In addition lunch takes {lunch} minutes." if meal else ""
    time = f"{lessons}*{minutes}+({lessons}-1)*{pauses}" + (f"+{lunch}" if meal else "")
    hours = d.maybe(0.4)
    ask = (
        "How many hours is that from beginning to end? Give a decimal number."
        if hours
        else d.pick(
            "How many minutes is that from beginning to end?", "How many minutes in all?"
        )
    )
    began = f"{start}:00" in setup
    no_last = f"{lessons}*{minutes}+{lessons}*{pauses}" + (f"+{lunch}" if meal else "")
    by = "/60" if hours else ""
    return Story(
        "timetable",
        d.tell(setup, food, ask, idle=(f"{d.num(12, 30)} people have signed up.",)),
        f"({time}){by}" if hours else time,
        (f"({no_last}){by}", f"({lessons}*{minutes}){by}", f"({time}+{pauses}+{lunch}){by}"),
        idle_numbers=d.idle_numbers + int(began),
        conversions=int(hours),
    )


def fuel(d: Draw) -> Story:
    (who,) = d.names(1)
    km, per, price = d.num(150, 800, 50), d.num(5, 9), d.pick("1.60", "1.75", "1.80", "1.95")
    people, toll = d.num(2, 5), d.num(8, 40)
    setup = d.pick(
        f"{who}'s car needs {per} litres per 100 km. A litre costs {price}.",
        f"Fuel is {price} a litre, and the van burns {per} litres on 100 km.",
    )
    way, back = f"The way is {km} km long", d.maybe(0.4)
    way += ", and the same again back." if back else "."
    cost = f"{km}{'*2' if back else ''}/100*{per}*{price}"
    road, share = d.maybe(), d.maybe()
    tolls = f"Tolls come to {toll} for everything." if road else ""
    total = f"{cost}+{toll}" if road else cost
    ask = (
        f"The {people} people in it split the costs equally. What is each one's share?"
        if share
        else "What does the journey cost?"
    )
    return Story(
        "fuel",
        d.tell(setup, way, tolls, ask, idle=(f"The radio station is {d.num(88, 107)}.5 FM.",)),
        (f"({total})/{people}" if road else f"{total}/{people}") if share else total,
        (cost, f"{km}/100*{per}*{price}", f"{km}/{per}*{price}", f"({total})/{people + 1}"),
        money=True,
        cents=(total,),
        idle_numbers=d.idle_numbers,
        conversions=1,
    )


def training(d: Draw) -> Story:
    (who,) = d.names(1)
    laps, metres, days, extra = d.num(6, 15), d.pick(400, 300, 250), d.num(2, 5), d.num(5, 14)
    weeks = d.num(2, 8)
    setup = d.pick(
        f"{who} runs {laps} laps of {metres} m on {days} days of the week.",
        f"On {days} days a week {who} does {laps} rounds on a track of {metres} m.",
    )
    long = d.maybe()
    sunday = (
        d.pick(
            f"Every Sunday there is one long run of {extra} km.",
            f"Once a week a forest run of {extra} km comes on top.",
        )
        if long
        else ""
    )
    week = f"{laps}*{metres}*{days}/1000" + (f"+{extra}" if long else "")
    many = d.maybe()
    time = f"in {weeks} weeks" if many else "in a week"
    expr = (f"({week})*{weeks}" if long else f"{week}*{weeks}") if many else week
    return Story(
        "training",
        d.tell(
            setup,
            sunday,
            d.pick(
                f"How many kilometres is that {time}?", f"What distance in km is run {time}?"
            ),
            idle=(
                f"{who}'s shoes cost {d.num(70, 140, 10)}.",
                f"A lap takes {d.num(2, 4)} minutes.",
            ),
        ),
        expr,
        (
            week,
            f"{laps}*{metres}/1000*{weeks}",
            f"({week}+{extra})*{weeks}",
            f"({week})*{days}",
        ),
        idle_numbers=d.idle_numbers,
        conversions=1,
    )


FAMILIES = (trip, reading, timetable, fuel, training)
