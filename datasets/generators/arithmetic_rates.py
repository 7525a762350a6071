"""Word problems about work done per unit of time."""

from generators.stories import Draw, Story


def tank(d: Draw) -> Story:
    cap, rate, leak, first = (
        d.num(300, 1500, 20),
        d.num(12, 40),
        d.num(2, 9),
        d.num(20, 180, 5),
    )
    vessel = d.pick("rainwater tank", "pool", "fish pond", "cistern")
    setup = d.pick(
        f"A {vessel} holds {cap} litres and has {first} litres in it.",
        f"There are {first} litres in a {vessel} of {cap} litres.",
    )
    flow = d.pick(
        f"A pump brings {rate} litres a minute, but {leak} litres a minute leak out.",
        f"While {rate} litres a minute run in, a crack loses {leak} litres a minute.",
    )
    minutes = d.num(5, 12)
    kind = d.pick("full", "after")
    if kind == "full":
        expr = f"({cap}-{first})/({rate}-{leak})"
        ask = d.pick("After how many minutes is it full?", "How many minutes until it is full?")
        whole: tuple[str, ...] = (expr,)
    else:
        expr = f"{cap}-({first}+{minutes}*({rate}-{leak}))"
        ask = d.pick(
            f"How many litres are missing from full after {minutes} minutes?",
            f"It is left so for {minutes} minutes. How many litres could it still take?",
        )
        whole = (expr,)
    return Story(
        "tank",
        d.tell(setup, flow, ask, idle=(f"It is {d.num(2, 4)} metres deep.",)),
        expr,
        (
            f"({cap}-{first})/{rate}",
            f"{cap}/({rate}-{leak})",
            f"({cap}-{first})/({rate}+{leak})",
            f"{first}+{minutes}*({rate}-{leak})",
        ),
        whole=whole,
        idle_numbers=d.idle_numbers,
    )


def printers(d: Draw) -> Story:
    a, b, first = d.num(12, 40, 2), d.num(10, 36, 2), d.num(3, 12)
    total = d.num(600, 2400, 20)
    thing = d.pick("leaflets", "posters", "programmes", "forms")
    setup = d.pick(
        f"{total} {thing} are to be printed. The first printer makes {a} a minute, the second"
        f" {b}.",
        f"Two printers share a job of {total} {thing}: the first does {a} per minute, the"
        f" second {b}.",
    )
    alone = d.maybe()
    start = (
        d.pick(
            f"Only the first runs for {first} minutes; then both run.",
            f"The second joins after {first} minutes.",
        )
        if alone
        else "Both run all the time."
    )
    both = f"({total}-{a}*{first})/({a}+{b})" if alone else f"{total}/({a}+{b})"
    jam = d.num(2, 9) if d.maybe(0.4) else 0
    stop = f"A paper jam stops everything for {jam} minutes." if jam else ""
    parts = ([both] if not alone else [f"{first}+{both}"]) + ([str(jam)] if jam else [])
    return Story(
        "printers",
        d.tell(
            setup,
            start,
            stop,
            d.pick(
                "How many minutes does the job take in all?",
                "After how many minutes is it done?",
            ),
            idle=(f"A pack of paper has {d.pick(250, 500)} sheets.",),
        ),
        "+".join(parts),
        (both, f"{total}/{a}", f"{total}/{b}", f"{first}+{total}/({a}+{b})", f"{both}+{jam}+1"),
        whole=(both,),
        idle_numbers=d.idle_numbers,
    )


def call_centre(d: Draw) -> Story:
    agents, rate, hours = d.num(4, 15), d.num(6, 14), d.num(4, 9)
    share, late = d.num(60, 90, 5), d.num(1, 3)
    calls = f"{agents}*{rate}*{hours}"
    setup = d.pick(
        f"{agents} agents each take {rate} calls an hour, for {hours} hours.",
        f"A help desk is staffed with {agents} people for {hours} hours; one person handles"
        f" {rate} calls an hour.",
    )
    more = d.maybe(0.4)
    if more:
        calls = f"({agents}*{hours}+{late}*2)*{rate}"
    extra = (
        f"In the evening {late} of them stay for 2 more hours at the same pace." if more else ""
    )
    solved = d.pick(
        f"{share}% of the calls are solved at once. How many need a second call?",
        f"At once {share}% of all calls are settled; the others are passed on. How many"
        " are passed on?",
    )
    return Story(
        "call-centre",
        d.tell(setup, extra, solved, idle=(f"A call waits for {d.num(20, 90)} seconds.",)),
        f"{calls}*(100-{share})/100",
        (f"{calls}*{share}/100", calls, f"{agents}*{rate}*(100-{share})/100"),
        whole=(f"{calls}*(100-{share})/100",),
        idle_numbers=d.idle_numbers,
    )


def download(d: Draw) -> Story:
    n, size, small = d.num(2, 8), d.num(2, 6), d.num(200, 900, 100)
    speed, pause = d.pick(10, 20, 25, 40, 50), d.num(2, 9)
    setup = d.pick(
        f"{n} files of {size} GB and one of {small} MB are copied at {speed} MB a second.",
        f"A backup has {n} parts of {size} GB each and an index of {small} MB. The line"
        f" carries {speed} MB a second.",
    )
    note = "(1 GB is 1000 MB.)"
    stop = d.maybe()
    wait = f"On the way it stands still for {pause} minutes." if stop else ""
    base = f"({n}*{size}*1000+{small})/{speed}"
    minutes = not stop and d.maybe()
    expr = f"{base}+{pause}*60" if stop else f"{base}/60" if minutes else base
    return Story(
        "download",
        d.tell(
            setup,
            note,
            wait,
            f"How many {'minutes' if minutes else 'seconds'} does it take in all?",
            idle=(
                f"The disk is {d.num(30, 90)}% full.",
                f"It is backup number {d.num(3, 90)}.",
            ),
        ),
        expr,
        (
            f"{n}*{size}*1000/{speed}",
            f"({n}*{size}*1024+{small})/{speed}",
            f"{base}+{pause}",
            f"({size}*1000+{small})/{speed}",
        ),
        whole=(expr,),
        idle_numbers=d.idle_numbers,
        conversions=2 if stop or minutes else 1,
    )


def crew(d: Draw) -> Story:
    workers, days, done, gone = d.num(6, 14), d.num(8, 20), d.num(2, 6), d.num(2, 4)
    job = d.pick("pave a square", "paint a school", "clear a forest path", "wire an office")
    setup = d.pick(
        f"{workers} workers would need {days} days to {job}.",
        f"A firm plans {days} days for {workers} people to {job}.",
    )
    sign = d.pick("-", "+")
    change = (
        d.pick(
            f"After {done} days {gone} of them are called away.",
            f"{gone} fall ill when {done} days are over.",
        )
        if sign == "-"
        else d.pick(
            f"After {done} days {gone} more join them.",
            f"When {done} days have gone by, {gone} helpers come in addition.",
        )
    )
    rest = f"({workers}*{days}-{workers}*{done})/({workers}{sign}{gone})"
    total = d.maybe()
    ask = (
        "How many days does the job take from start to end, all working equally fast?"
        if total
        else "All work equally fast. How many more days does the rest take?"
    )
    return Story(
        "crew",
        d.tell(setup, change, ask, idle=(f"A working day has {d.num(7, 9)} hours.",)),
        f"{done}+{rest}" if total else rest,
        (rest, f"{days}-{done}", f"{workers}*{days}/({workers}{sign}{gone})", f"{days}+{done}"),
        whole=(rest,),
        idle_numbers=d.idle_numbers,
    )


FAMILIES = (tank, printers, call_centre, download, crew)
