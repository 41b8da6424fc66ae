"""Category `command_intent`: which device or service a command to a home assistant is about.

One word of eight. It knows wordings only.
"""

from __future__ import annotations

from random import Random

from shammah_gateway.demo.drafts import Draft, expand, vary_case

CATEGORY = "command_intent"
METRIC = "label"

_SLOTS = {
    "room": (
        *("kitchen", "bedroom", "hallway", "bathroom", "living room", "garage", "attic", "study", "nursery"),
        *("dining room", "cellar", "guest room", "porch", "office", "laundry room", "stairway"),
    ),
    "lamp": ("lamp", "lights", "ceiling light", "spotlights", "reading lamp", "light strip", "floor lamp", "bulbs"),
    "degrees": tuple(str(n) for n in range(16, 26)),
    "amount": ("[two|three|four|five|eight] degrees", "a [bit|little]", "half a degree", "one degree"),
    "genre": ("jazz", "rock", "classical piano", "reggae", "folk songs", "techno", "blues", "opera", "country", "soul"),
    "artist": ("Miles Davis", "Nina Simone", "Queen", "Bach", "Adele", "Johnny Cash", "Daft Punk", "Bjork", "ABBA"),
    "minutes": ("[two|three|four|five|seven|nine|ten|twelve|fifteen|twenty|forty|fifty] minutes", "[an|one] hour"),
    "dish": ("pasta", "eggs", "rice", "pizza", "tea", "bread", "roast", "cookies", "potatoes", "soup", "cake"),
    "city": ("Oslo", "Madrid", "Boston", "Lyon", "Kyoto", "Cairo", "Denver", "Prague", "Leeds", "Naples", "Perth"),
    "when": (
        "today",
        "tonight",
        "tomorrow",
        "this weekend",
        "on [Monday|Friday|Sunday]",
        "this afternoon",
        "next week",
    ),
    "item": (
        *("milk", "butter", "eggs", "coffee beans", "apples", "dish soap", "oat flakes", "candles", "batteries"),
        *("tomatoes", "cheese", "toothpaste", "olive oil", "paper towels", "onions", "yoghurt", "flour", "honey"),
    ),
    "door": ("[front|back|side|cellar|patio|garage|balcony] door", "garden gate", "main entrance", "shed"),
    "event": (
        *("dentist visit", "team meeting", "parents' evening", "yoga class", "lunch with [Sam|Ana|Lee]", "car service"),
        *(
            "haircut",
            "piano lesson",
            "job interview",
            "birthday party",
            "vet visit",
            "choir practice",
            "board meeting",
        ),
    ),
    "hour": ("[six|seven|eight|nine|ten|eleven]", "half past [two|four|five]", "noon", "quarter to [three|nine]"),
}

# label -> (imperatives, other sentences)
_PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lights": (
        (
            "[turn|switch] [on|off] the {lamp} in the {room}",
            "[dim|brighten] the {lamp} in the {room}[| a little| to half]",
            "make the {lamp} in the {room} [brighter|darker|warmer|red|blue]",
            "set the {room} {lamp} to [ten|twenty|forty|sixty|eighty] percent",
            "[light up|illuminate] the {room}",
            "put the {room} {lamp} [on|off|out]",
        ),
        (
            "it is [far |much |]too [dark|bright] in the {room}",
            "I can not see a thing in the {room}",
            "[someone|I] left the {lamp} on in the {room}",
            "no need for the {room} {lamp} any more",
        ),
    ),
    "heating": (
        (
            "[set|put] the [heating|thermostat|radiator] in the {room} to {degrees} degrees",
            "[warm up|heat up|cool down] the {room}[| by {amount}]",
            "turn the [heating|radiator|thermostat] [up|down|off] in the {room}",
            "[raise|lower] the temperature in the {room} by {amount}",
            "keep the {room} at {degrees} degrees",
        ),
        (
            "it is [freezing|chilly|far too hot|stuffy and warm|icy cold] in the {room}",
            "my [feet|hands] are cold in the {room}",
            "I would like {degrees} degrees in the {room}",
            "the {room} should be {amount} [warmer|cooler]",
        ),
    ),
    "music": (
        (
            "play [some|a bit of|my favourite] {genre}[| in the {room}]",
            "put on [something by|an album by|a song by] {artist}",
            "[skip|pause|repeat|stop] this [song|track|tune]",
            "[start|resume|shuffle] my [{genre}|morning|party|workout|dinner] playlist",
            "turn the volume of the {genre} [up|down]",
            "queue [the new|the first|an old] album by {artist}",
        ),
        (
            "I [feel like|am in the mood for] [hearing|listening to] [{genre}|{artist}]",
            "who sings this [song|tune|track]?",
            "how about some {genre} in the {room}?",
            "that song by {artist} again",
        ),
    ),
    "timer": (
        (
            "set a timer for {minutes}[| for the {dish}]",
            "start a countdown of {minutes}[| for the {dish}]",
            "[cancel|stop|pause] the {dish} timer",
            "add {minutes} to the {dish} timer",
            "[tell me|ring|beep|give a signal] when {minutes} are [over|up]",
            "count down {minutes}[| for my {dish}]",
        ),
        (
            "how [much time|many minutes] [is|are] left on the {dish} timer?",
            "the {dish} [needs|takes] {minutes}, keep the time",
            "is the {dish} timer still running?",
            "{minutes} on the clock for the {dish}",
        ),
    ),
    "weather": (
        (
            "[tell me|give me|read me] the forecast for {city} {when}",
            "check [whether|if] it will [rain|snow|be sunny|be windy] in {city} {when}",
            "look up how [cold|warm|humid|stormy] it gets in {city} {when}",
            "[tell|warn] me about [storms|frost|fog|hail] in {city} {when}",
        ),
        (
            "[will|does] it [rain|snow|hail|clear up] in {city} {when}?",
            "do I need [an umbrella|a raincoat|sunglasses|a thick coat|sun cream] in {city} {when}?",
            "what is the weather [like|going to be] in {city} {when}?",
            "how [windy|sunny|cloudy|foggy] will it be in {city} {when}?",
            "is there [rain|snow|sunshine|thunder] [coming|expected] in {city} {when}?",
        ),
    ),
    "shopping": (
        (
            "[add|put] {item}[| and {item}] [to|on] the shopping list",
            "[remove|take|strike] {item} from the [shopping|grocery] list",
            "order [more|some|another pack of] {item}[| and {item}]",
            "write down {item} and {item} for the supermarket",
            "[read|show] me the [grocery|shopping] list[| without the {item}]",
            "buy [more|some] {item}[| and {item}] [this week|next time|soon]",
        ),
        (
            "we are [out of|running low on|short of] {item}[| and {item}]",
            "there is no {item} left [in the fridge|in the cupboard|at home]",
            "is {item} already on the [grocery|shopping] list?",
            "we need {item} and {item} from the store",
        ),
    ),
    "lock": (
        (
            "[lock|unlock|bolt] the {door}[| behind me| right now| for the night]",
            "[check|make sure] [that|whether] the {door} is [locked|bolted|shut tight]",
            "[let|buzz] the [plumber|cleaner|courier|neighbour|nanny] in at the {door}",
            "[secure|lock up] the {door} [when I leave|at night|after ten]",
        ),
        (
            "did I [forget to lock|leave open|lock] the {door}?",
            "is the {door} [locked|open|bolted|still unlocked]?",
            "nobody should get in through the {door}",
            "the [plumber|cleaner|courier|neighbour] is waiting outside the {door}, open up",
            "I am leaving, lock the {door}",
        ),
    ),
    "calendar": (
        (
            "[add|enter|schedule|plan] [a|the] {event} {when} at {hour}",
            "move [my|the] {event} to {when}[| at {hour}]",
            "[cancel|postpone|delete] [my|the] {event} {when}",
            "[remind|notify] me of the {event} {when}[| at {hour}]",
            "book {hour} {when} for the {event}",
        ),
        (
            "when is [my|the] [next |]{event}?",
            "am I free {when} at {hour}?",
            "what [appointments|meetings|plans] do I have {when}[| after {hour}]?",
            "does the {event} {when} clash with [anything|the {event}]?",
            "I have a {event} {when} at {hour}",
        ),
    ),
}
LABELS = tuple(_PATTERNS)

_IMPERATIVE_FRAMES = (
    "{x}",
    "[please|hey,|ok,|quick,|now] {x}",
    "{x} [please|thanks|for me]",
    "[can|could|will|would] you [please |kindly |]{x}[| for me]?",
    "I [want|need|would like] you to {x}",
    "[go ahead and|be so kind and|do me a favour and] {x}",
)
_SENTENCE_FRAMES = ("{x}", "{x}", "[hey|hm|listen|well|oh|sorry], {x}")


def draw(rng: Random, turn: int) -> Draft:
    """Word one command; `turn` picks the label so that the labels stay balanced."""
    label = LABELS[turn % len(LABELS)]
    imperatives, sentences = _PATTERNS[label]
    if rng.random() < 0.65:
        pattern, frame = rng.choice(imperatives), rng.choice(_IMPERATIVE_FRAMES)
    else:
        pattern, frame = rng.choice(sentences), rng.choice(_SENTENCE_FRAMES)
    words = expand(pattern, rng, _SLOTS)
    text = vary_case(expand(frame, rng, {"x": (words,)}), rng)
    return Draft(text=text, query=f"Intent of this command: {text}", reference=label)
