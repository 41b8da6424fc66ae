"""Category `date_normalisation`: the date in a sentence, written as YYYY-MM-DD.

Month names are written out and days are figures, with or without their ordinal ending. It knows wordings only.
"""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from shammah_gateway.demo.drafts import Draft, expand, vary_case

CATEGORY = "date_normalisation"
METRIC = "exact"

FIRST, LAST = date(2024, 1, 1), date(2027, 12, 31)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_FORMS = (
    "{day} {month} {year}",
    "{nth} {month} {year}",
    "the {nth} of {month} {year}",
    "{month} {day}, {year}",
    "{month} {nth}, {year}",
    "{weekday}, {day} {month} {year}",
    "{weekday} the {nth} of {month} {year}",
    "{weekday}, {month} {day}, {year}",
)

_SLOTS = {
    "paper": (
        *("invoice", "contract", "lease", "permit", "warranty", "ticket", "passport", "report", "licence", "voucher"),
        *("policy", "tender", "visa", "certificate", "subscription", "offer", "receipt", "letter", "quote", "bill"),
    ),
    "event": (
        *("meeting", "concert", "exam", "wedding", "launch", "audit", "race", "lecture", "hearing", "festival"),
        *("workshop", "flight", "surgery", "match", "ceremony", "auction", "training", "fair", "trial", "election"),
    ),
    "whose": ("the", "our", "my", "your", "this", "her", "their", "Anna's", "the client's", "the school's"),
    "person": ("Maria", "my brother", "the doctor", "the new tenant", "Omar", "our boss", "the judge", "Aunt Li"),
}

_PATTERNS = (
    "{date}",
    "{whose} {paper} [ends|starts|expires|runs out|was signed|was issued] on {date}",
    "{whose} {event} [is|was|will be|takes place|was moved to|has been set for] {date}",
    "{whose} {paper} is [valid until|dated|due on|good through] {date}",
    "[on] {date} {person} [arrived|left|moved in|signed the {paper}|called about the {event}]",
    "{person} [was born|married|retired|graduated|started here|returned] on {date}",
    "[deadline|due date|start|end] of {whose} {paper}: {date}",
    "[please |]pay {whose} {paper} by {date}",
    "[can|could] we [hold|plan] {whose} {event} on {date}?",
    "{whose} {event}, {date}[|, doors open at noon|, bring a friend]",
    "[remember|note|mark] {date} for {whose} {event}",
    "[from|until|since|before|after] {date} {whose} {paper} [counts|applies|holds]",
    "{person} has [booked|confirmed|cancelled] {whose} {event} for {date}",
    "{date} is [when|the day] {whose} {event} [starts|begins|happens]",
    "[shop|office|library|museum|pool] closed on {date} because of {whose} {event}",
    "there is [a seat|a slot|an opening] for {whose} {event} on {date}",
    "{whose} {paper} came in the post on {date}",
    "nobody [came|replied|noticed] until {date}",
)


def ordinal(day: int) -> str:
    """Write a day of the month with its English ending: 1st, 2nd, 3rd, 11th."""
    if 11 <= day % 100 <= 13:
        return f"{day}th"
    return str(day) + {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def draw(rng: Random, turn: int) -> Draft:
    """Word one sentence with a date; `turn` walks through the months."""
    while True:
        when = FIRST + timedelta(days=rng.randrange((LAST - FIRST).days + 1))
        if when.month == turn % 12 + 1:
            break
    parts = {
        "day": (str(when.day),),
        "nth": (ordinal(when.day),),
        "month": (MONTHS[when.month - 1],),
        "year": (str(when.year),),
        "weekday": (WEEKDAYS[when.weekday()],),
    }
    written = expand(rng.choice(_FORMS), rng, parts)
    text = vary_case(expand(rng.choice(_PATTERNS), rng, {**_SLOTS, "date": (written,)}), rng)
    return Draft(text=text, query=f"As ISO date: {text}", reference=when.isoformat())
