"""Topics and sentences from which model answers are put together. No sentence has a comma."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """What one can say about a habit.

    doing, tool, place, gain, risk and start fill SENTENCES. tempting: words a writer on the
    topic would reach for; no answer of ours has them.
    """

    doing: str
    tool: str
    place: str
    gain: str
    risk: str
    start: str
    tempting: tuple[str, ...]


# Two lines per topic: doing, tool, place, gain; risk, start, tempting words.
NOTES = """
keeping bees | smoker | garden | patience
    stings | one hive | honey swarm queen
baking bread | scale | kitchen | a full larder
    burnt crusts | one simple loaf | flour dough oven
riding a bicycle to work | helmet | city | fresh air
    wet roads | a short route | traffic car wheel
learning chess | board | club | calm thinking
    early mistakes | one opening | king pawn game
growing tomatoes | watering can | balcony | ripe colour
    late frost | three seedlings | soil plant sun
swimming in cold water | towel | lake | a clear head
    cramps | two minutes | sea winter ice
repairing old radios | soldering iron | workshop | quiet joy
    electric shocks | one dead speaker | music antenna wire
writing a diary | pencil | bedroom | better memory
    lost evenings | five lines | page book secret
walking in the mountains | map | valley | strong legs
    sudden storms | a marked trail | boots rock summit
playing the violin | metronome | music room | a trained ear
    sore fingers | slow scales | bow string song
keeping a small budget | notebook | office | peace of mind
    hidden costs | one month | money bank debt
watching birds | field glass | marsh | sharp eyes
    cold hands | ten common kinds | nest wing feather
cooking for a crowd | large pot | community hall | grateful guests
    allergies | a hearty stew | soup salt recipe
speaking in public | clock | lecture room | steady nerves
    dry throats | a friendly group | audience stage microphone
sewing clothes | thimble | spare room | a good fit
    crooked seams | an apron | needle thread fabric
training a dog | whistle | park | mutual trust
    loud distractions | one command | leash puppy treat
fishing at dawn | folding chair | river | long silence
    slippery stones | a calm bay | boat hook bait
taking photographs | tripod | old town | an eye for light
    blurred pictures | one lens | camera film flash
sorting household waste | set of bins | cellar | a clean yard
    broken glass | paper alone | plastic recycling garbage
reading aloud to children | lamp | library | rich language
    restless evenings | a short tale | story parents bed
building model ships | tweezers | attic | a steady hand
    spilled glue | a simple hull | sail wood paint
studying a new language | stack of cards | train | wider horizons
    false friends | fifty phrases | grammar teacher school
running long distances | stopwatch | forest | deep sleep
    tired knees | a slow mile | marathon race shoes
brewing tea | thermometer | tea house | a moment of rest
    bitter cups | one green leaf | kettle water milk
"""


def topics(notes: str) -> tuple[Topic, ...]:
    """The topics of `NOTES`."""
    halves = [[part.strip() for part in line.split("|")] for line in notes.strip().splitlines()]
    pairs = zip(halves[::2], halves[1::2], strict=True)
    return tuple(
        Topic(*first, risk, start, tuple(tempting.split()))
        for first, (risk, start, tempting) in pairs
    )


TOPICS = topics(NOTES)
SENTENCES = (
    "Many people come to {doing} by chance and stay for {gain}.",
    "The best place for it is a quiet {place} on a calm day.",
    "A good {tool} is worth more than ten cheap ones.",
    "Newcomers often worry about {risk} more than they need to.",
    "Whoever begins with {start} will see results within weeks.",
    "The main reward of {doing} is {gain}.",
    "Nobody should ignore {risk} when the day gets long.",
    "Half an hour in the {place} can change the mood of a whole week.",
    "It helps to keep the {tool} within reach at all times.",
    "Friends who share the interest make {doing} twice as pleasant.",
    "Most mistakes come from haste and not from lack of talent.",
    "Even a modest {place} offers enough room for a first attempt.",
    "You do not have to spend much before {doing} becomes rewarding.",
    "Think of {start} as the first step of a long journey.",
    "With a little care {risk} can be avoided.",
    "Every season teaches something new about {doing}.",
    "The {tool} deserves a careful look before each use.",
    "After a year most beginners speak of {gain} with some pride.",
    "Older neighbours are often glad to pass on what they know.",
    "Progress is slow at first and then surprisingly quick.",
    "Set a fixed hour for {doing} and defend it against other duties.",
    "There is no shame in stopping early because of {risk}.",
    "A visit to the {place} costs nothing and shows how others do it.",
    "Write down what went well so that the next attempt is easier.",
)
POINTS = (
    "Find a suitable {place} near your home.",
    "Buy a solid {tool} and learn how to use it.",
    "Begin with {start} and nothing else.",
    "Learn how to prevent {risk}.",
    "Ask an experienced person for advice on {doing}.",
    "Look forward to {gain}.",
    "Reserve two quiet hours a week for {doing}.",
    "Note every small success.",
    "Check the {tool} before each session.",
    "Stop early for fear of {risk} if you must.",
    "Visit the {place} at different times of the day.",
    "Be patient until {gain} arrives.",
    "Share the experience with a friend.",
    "Repeat {start} until it feels easy.",
)
OPENERS = ("Today", "Often", "Usually", "Clearly", "Luckily", "Honestly", "Sometimes", "Surely")
ENDINGS = (
    "And that is all it takes.",
    "Now it is your turn.",
    "Try it once and see.",
    "The rest comes with time.",
    "Good luck with it!",
    "Why not start tomorrow?",
    "That is a promise.",
    "Small steps lead far.",
)
TASKS = (
    "Write a short text about {doing} for {reader}.",
    "Explain to {reader} what {doing} is like.",
    "Encourage {reader} to try {doing}.",
    "Draft something on {doing} that {reader} would enjoy.",
    "What should {reader} know about {doing}? Write it down.",
    "Compose a note on {doing}, meant for {reader}.",
)
READERS = (
    "a curious neighbour",
    "a class of twelve-year-olds",
    "a busy colleague",
    "the readers of a local paper",
    "an old friend",
    "someone who has never tried it",
    "new members of a club",
    "a sceptical uncle",
)
EXCUSES = ("Sure! Here is the text you asked for.", "Of course, here it is:", "Certainly!")
