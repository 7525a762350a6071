"""Word problems about areas, ages, averages and shares."""

from generators.stories import Draw, Story


def tiles(d: Draw) -> Story:
    long, wide, side = d.num(4, 12), d.num(3, 9), d.pick(20, 25, 50)
    off, waste, price = d.num(1, 4), d.pick(5, 10, 20), d.price(12, 38)
    room = d.pick("kitchen", "hall", "terrace", "bathroom", "workshop")
    setup = d.pick(
        f"The floor of a {room} is {long} m long and {wide} m wide.",
        f"A {room} measures {long} m by {wide} m.",
    )
    cut = d.maybe()
    column = f"{off} square metres are left without tiles." if cut else ""
    area = f"({long}*{wide}-{off})" if cut else f"{long}*{wide}"
    kind = d.pick("pieces", "cost", "waste")
    if kind == "pieces":
        expr, conversions = f"{area}*(100/{side})*(100/{side})", 1
        ask = f"How many square tiles with sides of {side} cm are needed?"
    elif kind == "cost":
        expr, conversions = f"{area}*{price}", 0
        ask = f"Tiles are {price} per square metre. What do they cost?"
    else:
        expr, conversions = f"{area}*(100+{waste})/100*{price}", 0
        ask = (
            f"One buys {waste}% more than the area because of breakage, at {price} per square"
            " metre. What is to be paid?"
        )
    if expr.count("*") + expr.count("-") < 2:
        expr = f"{expr}+{off}*5"
        ask = f"{off} tubes of glue at 5 each are bought too. " + ask.replace(
            "do they cost", "do glue and tiles cost together"
        )
    return Story(
        "tiles",
        d.tell(setup, column, ask, idle=(f"The ceiling is {d.pick(2.4, 2.5, 2.7)} m high.",)),
        expr,
        (
            f"{long}*{wide}*{price}",
            f"2*({long}+{wide})*{price}",
            f"{area}*100",
            f"{area}*{side}",
        ),
        money=kind != "pieces",
        idle_numbers=d.idle_numbers,
        conversions=conversions,
    )


def fence(d: Draw) -> Story:
    long, wide, gate, gap = d.num(12, 60, 2), d.num(8, 40, 2), d.num(2, 5), d.pick(2, 3, 4)
    metre, post = d.num(7, 25), d.num(4, 15)
    ground = d.pick("meadow", "garden", "paddock", "building site")
    setup = d.pick(
        f"A rectangular {ground} of {long} m by {wide} m gets a fence all around, except for a"
        f" gate of {gate} m.",
        f"Someone fences in a {ground} that is {long} m long and {wide} m wide, leaving"
        f" {gate} m open for a gate.",
    )
    run = f"2*({long}+{wide})-{gate}"
    kind = d.pick("length", "cost", "posts")
    whole: tuple[str, ...] = ()
    if kind == "length":
        expr, ask = run, "How many metres of fence are needed?"
    elif kind == "cost":
        expr = f"({run})*{metre}"
        ask = f"A metre of fence costs {metre}. What does it come to?"
    else:
        expr = f"(({run})/{gap}+1)*{post}"
        whole = (f"({run})/{gap}",)
        ask = (
            f"From one side of the gate to the other there is a post every {gap} m, one at each"
            f" end included. A post costs {post}. What do all posts cost?"
        )
    return Story(
        "fence",
        d.tell(setup, ask, idle=(f"It will be {d.pick(110, 120, 150, 180)} cm high.",)),
        expr,
        (
            f"({long}+{wide}-{gate})*{metre}",
            f"2*({long}+{wide})*{metre}" if kind == "cost" else f"2*({long}+{wide})",
            f"({run})/{gap}*{post}" if kind == "posts" else f"{long}*{wide}-{gate}",
            f"{run}+{gate}+{gate}",
        ),
        whole=whole,
        idle_numbers=d.idle_numbers,
    )


def ages(d: Draw) -> Story:
    a, b, c = d.names(3)
    base, times, older, years = d.num(5, 19), d.num(2, 4), d.num(2, 11), d.num(3, 12)
    word = {2: "twice", 3: "three times", 4: "four times"}[times]
    setup = d.pick(
        f"{a} is {base}. {b} is {word} as old, and {c} is {older} years older than {b}.",
        f"{c} was born {older} years before {b}, who is {word} as old as {a}. {a} is {base}.",
        f"{b}'s age is {word} that of {a}, who is {base} now. {c} has lived {older} years"
        f" longer than {b}.",
    )
    top = f"{base}*{times}+{older}"
    kind = d.pick("sum", "then", "gap", "mean")
    if kind == "sum":
        expr, ask = f"{base}+{base}*{times}+{top}", "How old are the three together?"
    elif kind == "then":
        expr = f"{base}+{top}+2*{years}"
        ask = f"How old will {a} and {c} be together in {years} years?"
    elif kind == "gap":
        expr, ask = f"{top}-{base}", f"How many years lie between {a} and {c}?"
    else:
        expr = f"({base}+{base}*{times}+{top})/3"
        ask = "What is the mean age of the three?"
    return Story(
        "ages",
        d.tell(setup, ask, idle=(f"Their street has {d.num(12, 60)} houses.",)),
        expr,
        (top, f"{base}+{base}*{times}+{older}", f"{top}+{base}+{years}", f"{base}*{times}"),
        idle_numbers=d.idle_numbers,
    )


def marks(d: Draw) -> Story:
    (who,) = d.names(1)
    n, mean, goal = d.num(3, 7), d.num(64, 84), d.num(70, 88)
    setup = d.pick(
        f"After {n} tests {who} has an average of {mean} points.",
        f"{who}'s mean over {n} tests is {mean} points.",
    )
    kind = d.pick("need", "two", "drop")
    low = d.num(40, 60)
    if kind == "need":
        expr = f"{goal}*({n}+1)-{mean}*{n}"
        ask = d.pick(
            f"How many points must the next test bring for an average of {goal}?",
            f"One more test is to make it {goal} on average. How many points does it take?",
        )
    elif kind == "two":
        got = d.num(60, 95)
        expr = f"({mean}*{n}+{got})/({n}+1)"
        ask = f"The next test brings {got}. What is the new average?"
    else:
        expr = f"({mean}*{n}-{low})/({n}-1)"
        ask = d.pick(
            f"The worst one, {low} points, is struck out. What is the average of the others?",
            f"A result of {low} is cancelled. What is the mean of those that count?",
        )
    return Story(
        "marks",
        d.tell(setup, ask, idle=(f"A test lasts {d.num(45, 90, 5)} minutes.",)),
        expr,
        (f"({mean}+{goal})/2", f"2*{goal}-{mean}", f"{mean}*{n}", f"({mean}+{low})/2"),
        idle_numbers=d.idle_numbers,
    )


def mixture(d: Draw) -> Story:
    a, b, p, q = d.num(200, 900, 50), d.num(100, 800, 50), d.num(5, 40, 5), d.num(45, 80, 5)
    liquid = d.pick("syrup", "acid", "orange juice", "alcohol", "vinegar")
    setup = d.pick(
        f"{a} ml of a drink with {p}% {liquid} are mixed with {b} ml of one with {q}%.",
        f"Into {a} ml of a solution that holds {p}% {liquid} one pours {b} ml of another that"
        f" holds {q}%.",
    )
    pure = f"{a}*{p}/100+{b}*{q}/100"
    kind = d.pick("pure", "percent", "water")
    if kind == "pure":
        expr, ask = pure, f"How many ml of pure {liquid} are in the mixture?"
    elif kind == "percent":
        expr = f"({a}*{p}+{b}*{q})/({a}+{b})"
        ask = f"How many per cent of the mixture is {liquid}?"
    else:
        expr = f"{a}+{b}-({pure})"
        ask = f"How many ml of the mixture are not {liquid}?"
    return Story(
        "mixture",
        d.tell(setup, ask, idle=(f"The jug holds {d.num(2, 4)} litres.",)),
        expr,
        (f"({p}+{q})/2", pure, f"({a}+{b})*({p}+{q})/100", f"{a}*{q}/100+{b}*{p}/100"),
        idle_numbers=d.idle_numbers,
    )


def survey(d: Draw) -> Story:
    people, p, q, extra = d.num(200, 1600, 40), d.num(20, 90, 5), d.num(10, 90, 5), d.num(5, 60)
    topic = d.pick("a night bus", "a new park", "longer opening hours", "a cycle lane")
    setup = d.pick(
        f"{people} people are asked about {topic}; {p}% of them answer.",
        f"Of {people} people who get a letter about {topic}, {p}% answer it.",
    )
    some = f"{people}*{p}/100"
    kind = d.pick("yes", "no", "late", "gap")
    if kind == "yes":
        expr = f"{some}*{q}/100+{extra}"
        ask = (
            f"{q}% of the answers are in favour, and {extra} more come by telephone, all in"
            " favour. How many voices in favour is that?"
        )
    elif kind == "no":
        expr, ask = (
            f"{some}*(100-{q})/100",
            f"{q}% of those who answer are in favour. How many who answer are not?",
        )
    elif kind == "late":
        expr = f"({some}+{extra})*{q}/100"
        ask = (
            f"{extra} more answers come late and count too. {q}% of all answers are in favour."
            " How many is that?"
        )
    else:
        expr = f"{people}-{some}-{extra}"
        ask = f"Of the others, {extra} have moved away. How many simply kept silent?"
    return Story(
        "survey",
        d.tell(setup, ask, idle=(f"The form has {d.num(5, 20)} questions.",)),
        expr,
        (f"{people}*{q}/100", some, f"{people}*({p}+{q})/200", f"{some}-{extra}"),
        whole=(some, expr),
        idle_numbers=d.idle_numbers,
    )


FAMILIES = (tiles, fence, ages, marks, mixture, survey)
