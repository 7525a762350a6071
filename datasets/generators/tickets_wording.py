"""What people write to support, by the queue that has to handle it.

In every queue: `plain` says it outright, `veiled` says it indirectly, `aside` mentions it as a
minor matter (a clause that can follow "By the way:"), `denied` names the topic only to say that
it is not the matter. Slots in braces are filled by `tickets.py`.
"""

from dataclasses import dataclass

DEFINITIONS = {
    "billing": "charges, invoices, prices and payment methods, when no money is to be returned",
    "refund": "the customer wants money back for something paid",
    "bug": "the product does something wrong for this customer",
    "outage": "the service is down or unusable for many people at once",
    "account_access": "signing in, passwords, locked or lost accounts",
    "feature_request": "a wish for something the product does not do yet",
    "shipping": "delivery of physical goods: late, lost, damaged, wrong address",
    "security": "suspected intrusion, leaked data, phishing, a vulnerability",
}
KEYWORDS = {
    "billing": ("billing", "bill", "invoice", "charge", "charged"),
    "refund": ("refund", "refunded", "money back"),
    "bug": ("bug", "bugs", "wrong"),
    "outage": ("outage", "down", "unusable"),
    "account_access": ("account", "access", "password", "locked", "sign in"),
    "feature_request": ("feature", "request", "wish"),
    "shipping": ("shipping", "shipped", "delivery", "delivered"),
    "security": ("security", "secure", "phishing", "vulnerability"),
}
# The queue a hurried reader would take instead.
NEIGHBOURS = {
    "billing": ("refund", "account_access", "bug"),
    "refund": ("billing", "shipping", "bug"),
    "bug": ("outage", "feature_request", "account_access"),
    "outage": ("bug", "account_access", "security"),
    "account_access": ("security", "bug", "outage"),
    "feature_request": ("bug", "billing", "account_access"),
    "shipping": ("refund", "billing", "outage"),
    "security": ("account_access", "bug", "outage"),
}


@dataclass(frozen=True, slots=True)
class Wording:
    plain: tuple[str, ...]
    veiled: tuple[str, ...]
    detail: tuple[str, ...]
    aside: tuple[str, ...]
    denied: tuple[str, ...]


WORDINGS = {
    "billing": Wording(
        plain=(
            "The invoice for {month} lists {count} seats, but we have only {few}.",
            "Why did the price of our {plan} plan go up in {month}?",
            "Please put our new VAT number on the invoices from now on.",
            "We would like to pay by bank transfer rather than by card.",
            "My card expires in {month}; where do I enter the new one for the subscription?",
            "I was charged {amount} and cannot tell what the item on the bill stands for.",
        ),
        veiled=(
            "Our accountant cannot match the {amount} of {month} with anything we ordered.",
            "The sum on the document of {month} is not what the sales page says for {plan}.",
            "We moved, and the paper that goes to our bookkeeper still has the old address.",
            "What will the {plan} plan cost us once we are {count} people?",
            "From {month} on the amount should be drawn from another bank, please.",
            "Two lines of {amount} stand on the {month} statement; which seats do they cover?",
        ),
        detail=(
            "The customer number is {code}.",
            "Our finance team closes the month in {few} days.",
            "We do not ask for anything to be paid out, only for an explanation.",
            "The document has the number {code}.",
        ),
        aside=(
            "the invoice of {month} still shows our old address",
            "at some point somebody should explain the {amount} on the last bill",
            "we may want to pay by the year from {month} on",
        ),
        denied=(
            "The invoice is fine, so please do not send this to the accounts team.",
            "I have no question about an invoice.",
        ),
    ),
    "refund": Wording(
        plain=(
            "I cancelled in {month} and would like the {amount} refunded.",
            "Please give me my money back for the {item}; I returned it {few} days ago.",
            "We paid {amount} twice and want one of the two payments back.",
            "The trial was meant to be free. I ask for a refund of {amount}.",
            "When will the refund of {amount} that you promised arrive?",
            "I bought {plan} by mistake {few} days ago and would like to be refunded.",
        ),
        veiled=(
            "The {item} went back to you {few} weeks ago, and my {amount} are still with you.",
            "We stopped using {plan} in {month}; the rest of the yearly fee is ours, I think.",
            "Your guarantee says {count} days, I am at day {few}, and I am not staying.",
            "Somebody at your end took {amount} twice; kindly reverse one of them.",
            "The course was called off, so I expect the {amount} on my card again.",
            "Where can I hand back {plan}? After {few} days I see that it is not for us.",
        ),
        detail=(
            "The receipt has the number {code}.",
            "It was paid by card at the end of {month}.",
            "Your colleague {name} agreed to it on the phone.",
            "I have read your terms, and they allow it.",
        ),
        aside=(
            "you still owe me {amount} from a returned {item}, but there is no hurry",
            "I may send the {item} back later",
            "the double payment of {month} can be settled some other day",
        ),
        denied=(
            "I am not asking for my money back.",
            "Nothing has to be paid back to me.",
        ),
    ),
    "bug": Wording(
        plain=(
            "The {screen} shows {count} entries when there are {few}: a bug, I believe.",
            "When I press save in the {screen}, the app crashes every time.",
            "Dates in the {screen} are one day off since the update of {month}.",
            "The export from the {screen} writes an empty file.",
            "Sorting the {screen} by name puts Z before A.",
            "In {browser} the buttons of the {screen} do not react.",
        ),
        veiled=(
            "I type {amount}, leave the {screen}, come back, and it reads {count}.",
            "Since the last update my {screen} greets me with somebody's test text.",
            "However often I drag a card in the {screen}, it jumps back to where it was.",
            "The total in the {screen} is never the sum of the lines above it.",
            "Every {few}th row vanishes from my {screen} when I scroll; reloading restores it.",
            "{browser} users like me see the {screen} in Spanish, whatever we choose.",
        ),
        detail=(
            "My colleagues on other machines do not see this.",
            "I can repeat it at will; a recording is attached.",
            "It began with version {few}.{count}.",
            "I use {browser} on a laptop; on the phone it works.",
        ),
        aside=(
            "the {screen} sometimes draws its lines twice",
            "a button in the {screen} has a spelling mistake",
            "the {screen} forgets my sorting now and then",
        ),
        denied=(
            "Please do not hand this to those who mend buttons and lists.",
            "This is not about a list or a button that misbehaves.",
        ),
    ),
    "outage": Wording(
        plain=(
            "Your service is down for all of us since {time}.",
            "Nobody in our {count} offices can reach the app; it answers 503.",
            "Is there an outage? All {count} of our people get a blank page.",
            "The API has been timing out for every customer of ours since {time}.",
            "Nothing loads, for anyone here, and your status page is red.",
            "Since {time} no request of our {count} shops gets through to you.",
        ),
        veiled=(
            "At {time} the whole floor stopped working: {count} screens, one spinning wheel.",
            "Our shops in {count} towns have written orders on paper since {time}.",
            "Is it only us? {count} people, three networks, and not one page comes up.",
            "Since {time} all {count} of us, here and at home, stare at an empty window.",
            "The phones do not stand still: none of our {count} clients can work with you now.",
            "From {time} on it has been silent: no data from you to any of our {count} sites.",
        ),
        detail=(
            "We tried from {few} different networks.",
            "Until then the day was normal.",
            "Other websites open at once.",
            "Please tell us when it will be over.",
        ),
        aside=(
            "for a minute at {time} nothing could be reached by anyone, but that is over",
            "the short interruption of {month} still comes up in our meetings",
            "your status page was red for a moment at {time}",
        ),
        denied=(
            "The service as a whole is up; others here work normally.",
            "I know that the interruption of {month} is over, that is not why I write.",
        ),
    ),
    "account_access": Wording(
        plain=(
            "I forgot my password, and the reset mail does not arrive.",
            "My account is locked after {few} attempts. Please unlock it.",
            "I cannot sign in since I have a new phone: the code app is gone.",
            "{name} has left us, and nobody else can log in as administrator.",
            "Please change the login e-mail of user {code}; the old address is closed.",
            "The login page says that my user does not exist.",
        ),
        veiled=(
            "The six digits it asks for went to a phone that lies in a lake.",
            "{name} retired, and with {name} went the only key to our workspace.",
            "I stand before the door: it knows my name but rejects what I type.",
            "After {few} tries it told me to wait {count} minutes, since yesterday.",
            "The link you mail me to begin anew has always expired when I click it.",
            "My address changed when I married, and now the start page calls me a stranger.",
        ),
        detail=(
            "My user is {code}.",
            "I can prove who I am by any means you like.",
            "It worked until {month}.",
            "A colleague can let me look over her shoulder, but I need my own entry.",
        ),
        aside=(
            "I had to type my code {few} times today before it let me in",
            "{name} will need a login from {month} on",
            "a colleague's login is to be removed when there is time",
        ),
        denied=(
            "My login is not the matter.",
            "My password is valid, so do not send me a new one.",
        ),
    ),
    "feature_request": Wording(
        plain=(
            "Could you add a dark mode to the {screen}?",
            "It would be great if the {screen} could be exported as a spreadsheet.",
            "Please consider a keyboard shortcut for the {screen}.",
            "I would love to see the {screen} on the phone too.",
            "We miss a way to share the {screen} with people outside.",
            "A calendar view for the {screen} would help our {count} planners.",
        ),
        veiled=(
            "Every evening I copy the {screen} by hand into a table of {count} columns.",
            "Your rival shows the {screen} by week as well as by day. Just saying.",
            "If the {screen} could speak to our calendar, {name} would stop cursing.",
            "Have you ever thought of letting {count} people edit the {screen} together?",
            "We print the {screen} and mark it with pens, for want of colours to assign.",
            "How do others get a reminder from the {screen}? As far as I see there is none.",
        ),
        detail=(
            "I know that it is not there today.",
            "{count} colleagues would use it.",
            "It need not be this year.",
            "We would gladly try an early version.",
        ),
        aside=(
            "a darker {screen} would be easier on the eyes one day",
            "it would be nice to have the {screen} on the phone at some point",
            "perhaps the {screen} can get a search box some time",
        ),
        denied=(
            "I am not proposing anything new.",
            "This is not an idea for a later version.",
        ),
    ),
    "shipping": Wording(
        plain=(
            "My {item} was to be delivered {few} days ago and is not here.",
            "The parcel with the {item} arrived with a broken corner.",
            "Tracking {code} has not moved for {few} days.",
            "Please change the delivery address of order {code}; we have moved.",
            "You shipped the {item} in the wrong colour.",
            "The courier left the {item} at the wrong house.",
        ),
        veiled=(
            "The {item} left {city} {few} days ago and has been admiring the scenery since.",
            "I waited at the door on {few} days; the driver says nobody was in.",
            "What I unpacked is in {few} pieces, and it should be one {item}.",
            "The neighbours at number {count} are pleased with the {item} that is mine.",
            "The box was there on time, but in place of the {item} it held a manual.",
            "By the time the {item} gets here from {city}, our fair in {month} will be over.",
        ),
        detail=(
            "The order has the number {code}.",
            "I still want it, just soon and whole.",
            "The last scan was in {city}.",
            "Someone is at home every day after {time}.",
        ),
        aside=(
            "the {item} from {city} came two days late, which was all right",
            "our address for parcels changes in {month}",
            "the box of the {item} had a dent, the contents are fine",
        ),
        denied=(
            "The parcel itself arrived on time and whole.",
            "There is nothing amiss with the delivery.",
        ),
    ),
    "security": Wording(
        plain=(
            "We got a phishing mail that uses your logo and asks for passwords.",
            "Someone from {city} signed in to my account, and it was not me.",
            "I found a vulnerability: another number in the address shows other customers.",
            "An API key of ours was published by mistake; please revoke it.",
            "I fear that our data leaked: strangers quote from our {screen}.",
            "Where do I report a security hole in the {screen}?",
        ),
        veiled=(
            "A friendly {name} who claims to work for you wants my six digits by phone.",
            "With one digit changed in the address line I read a stranger's {screen}.",
            "My log shows me at work in {city} at {time}. I was asleep, at home.",
            "A person I never met knew the figures from our {screen} to the cent.",
            "Our intern put the secret token into a public folder {few} days ago.",
            "Somebody added a forwarding rule to {city} in my settings; none of us did.",
        ),
        detail=(
            "I have touched nothing since then.",
            "I would rather tell the particulars to one person only.",
            "There are {few} such cases by now.",
            "Screenshots with times are attached.",
        ),
        aside=(
            "the odd mail with your logo turned out to be real",
            "we will want your latest audit report for our files in {month}",
            "a colleague asked again how long you keep the log files",
        ),
        denied=(
            "Nobody has broken in, to be clear.",
            "I have no suspicion against anybody.",
        ),
    ),
}
