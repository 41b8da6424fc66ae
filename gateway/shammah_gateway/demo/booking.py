"""Category `booking_extraction`: how many people and which weekday, out of a booking request, as compact JSON.

Times, names and occasions are there to distract. It knows wordings only.
"""

from __future__ import annotations

import json
from random import Random

from shammah_gateway.demo.drafts import Draft, expand, vary_case

CATEGORY = "booking_extraction"
METRIC = "json"

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}

_SLOTS = {
    "time": (
        *("at [noon|midday]", "at [1|2|3|4|5|6|7|8|9] [pm|o'clock]", "at half past [six|seven|eight]"),
        *("at [18|19|20|21]:[15|30|45]", "[around|about|after] [6|7|8] pm", "for [lunch|dinner|brunch|breakfast]"),
        *("in the [evening|morning|afternoon]", "[early|late] in the evening", "before [5|6|7] pm"),
    ),
    "name": (
        *("Lopez", "Okafor", "Nielsen", "Marta", "Chen", "Ivanov", "Priya", "Grant", "Dubois", "Hana", "Weber"),
        *("Rossi", "Kim", "Aziz", "Novak", "Silva", "Murphy", "Tanaka", "Berg", "Olsen", "Yusuf", "Moreau"),
    ),
    "thing": (
        *("a table", "a quiet table", "a table by the window", "seats", "a corner table", "a booth", "places"),
        *("a table outside", "a table on the terrace", "a spot near the bar", "a private room"),
    ),
    "occasion": (
        *("a birthday", "our anniversary", "a business lunch", "a reunion", "a farewell", "a first date"),
        *("a graduation", "a family meal", "an office party", "a promotion", "a christening", "a quick bite"),
    ),
    "want": (
        *("I would like to book", "[can|could|may] [I|we] [book|reserve|get|have]", "we [need|want|are after]"),
        *("please [book|reserve|keep|hold] [us|me]", "is it possible to [book|reserve]", "I am looking for"),
    ),
    "greet": ("hello, ", "hi, ", "good morning, ", "good evening, ", "", "", "", "", ""),
}

_PATTERNS = (
    "{greet}{want} {thing} for {n}[| people| persons| guests] [on|this|next] {day} {time}",
    "{greet}{want} {thing} [on|this|next] {day} {time} for {n}[| people| persons| guests]",
    "{greet}{want} {thing} {time} [on|this] {day}, [we are {n}|{n} of us|party of {n}]",
    "{day} {time}, {n} [people|persons|guests], [name|under|for] {name}",
    "{n} [people|persons|guests], {day} {time}, [name is|under the name] {name}",
    "there [will be|are] {n} of us [on|this|next] {day}, it is {occasion}",
    "we are {n} and want to [come|eat] {time} [on|this] {day}[| for {occasion}]",
    "[party|group] of {n} for {occasion} [on|this|next] {day} {time}",
    "{thing} for {n} [on|next] {day}, [name|under] {name}",
    "{name} here, {thing} {time} {day} for {n}[| please]",
    "[do|would] you have {thing} for {n} [people |guests |] {time} [on|this] {day}?",
    "{occasion} with {n} [people|guests] [on|this|next] {day}, {want} {thing}",
    "my name is {name}, we are {n} [people|guests|persons] and would come [on|this] {day} {time}",
    "[on|this|next] {day} I am [bringing|expecting] {n} [guests|people] for {occasion}, {thing} {time}",
    "could {n} of us [eat|sit|dine] [outside|inside|together] [on|this] {day} {time}?",
    "it is {occasion}, so {thing} for {n} {time} [on|next] {day}, [thanks|please]",
    "[booking|reservation|request] by {name}: {n} [guests|people|persons], {day}, {time}",
    "{want} {thing} for {occasion}, {n} [people|guests], [on|next] {day}",
)


def draw(rng: Random, turn: int) -> Draft:
    """Word one request; `turn` walks through the weekdays."""
    day = DAYS[turn % len(DAYS)]
    people = rng.choice(tuple(NUMBERS))
    spelled = NUMBERS[people] if rng.random() < 0.5 else str(people)
    slots = {**_SLOTS, "day": (day,), "n": (spelled,)}
    text = vary_case(expand(rng.choice(_PATTERNS), rng, slots), rng)
    reference = json.dumps({"people": people, "day": day}, separators=(",", ":"))
    return Draft(text=text, query=f"Booking as JSON: {text}", reference=reference)
