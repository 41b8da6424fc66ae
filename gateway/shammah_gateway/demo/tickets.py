"""Category `ticket_routing`: which of six teams of a web shop should get a customer's message.

It knows wordings only.
"""

from __future__ import annotations

from random import Random

from shammah_gateway.demo.drafts import Draft, expand, vary_case

CATEGORY = "ticket_routing"
METRIC = "label"

_SLOTS = {
    "product": (
        *("headphones", "coffee machine", "desk lamp", "tablet", "printer", "bike helmet", "tent", "keyboard"),
        *("camera", "smart watch", "blender", "office chair", "router", "speaker", "vacuum cleaner", "drone"),
    ),
    "device": (
        *("coffee machine", "tablet", "printer", "keyboard", "camera", "smart watch", "router", "speaker", "drone"),
        *("vacuum cleaner", "headset", "projector", "e-reader", "game console", "thermometer", "smart scale"),
    ),
    "wear": ("shoes", "jackets", "gloves", "trousers", "rain coats", "sweaters", "boots", "socks", "dresses", "hats"),
    "month": ("[January|March|May|July|October|December]", "last month", "this month", "the spring"),
    "days": ("[two|three|four|five|six|nine] days", "a week", "two weeks", "ten days", "a fortnight"),
    "count": ("[thirty|forty|fifty|eighty]", "a hundred", "two hundred", "a dozen"),
    "card": ("credit card", "bank account", "debit card", "PayPal account"),
    "place": ("neighbour", "post office", "parcel shop", "bus driver", "reception desk", "wrong house"),
    "mood": (
        *("", "", "", "", "hello, ", "hi team, ", "good day, ", "urgent: ", "dear support, ", "please help, "),
        *("quick question: ", "again: ", "sorry to bother you, ", "second message: "),
    ),
    "end": (
        *("", "", "", "", ", please advise", ", thank you", ", what now", ", this is annoying", ", can you help"),
        *(", I am waiting", ", kind regards", ", please hurry", ", any idea"),
    ),
}

_PATTERNS: dict[str, tuple[str, ...]] = {
    "billing": (
        "I was charged [twice|double|too much] for the {product}",
        "the invoice [for|from] {month} [is missing|shows the wrong amount|has a wrong tax number|is not correct]",
        "[please send|I need] a [copy of my|corrected|new] invoice for the [{product}|{wear}]",
        "my {card} was [charged|debited] [again|twice|for nothing] in {month}",
        "the payment by {card} [failed|was declined|is still pending] but the money is gone",
        "why is there an extra fee on my [bill|invoice|statement] for {month}?",
        "can I pay the bill for the {product} [in instalments|by bank transfer|with another card]?",
        "VAT is [missing|wrong] on the [bill|invoice] for the [{product}|{wear}]",
        "you [billed|charged] me for {count} instead of one",
        "I want to change the {card} that pays my [monthly bill|invoices]",
    ),
    "shipping": (
        "my [parcel|package|delivery] with the [{product}|{wear}] is {days} late",
        "where is the [parcel|package|shipment] with my [{product}|{wear}]?",
        "the tracking [number|page|link] for my [{product}|{wear}] has not moved for {days}",
        "the courier left my [parcel|package] [at the|with the] {place}",
        "can the [parcel|delivery] go to [the {place}|my office|my new address|my parents] instead?",
        "the driver [never rang|did not stop|could not find us], the [{product}|{wear}] went back to the depot",
        "how many days does delivery of the [{product}|{wear}] [take|need] to [Spain|Norway|the islands|Canada]?",
        "only [half|part] of my shipment was delivered, the [{product}|{wear}] is still on its way",
        "tracking says delivered but no [parcel|package] with [{product}|{wear}] came",
        "the shipment has been stuck [in customs|at the depot|in a warehouse] for {days}",
    ),
    "returns": (
        "I want to [send back|return] the [{product}|{wear}]",
        "the {wear} [turned out|ended up|are] too [small|large|tight|wide], I need [to exchange them|another size]",
        "how do I [print|get] a return label for the [{product}|{wear}]?",
        "I [changed my mind about|do not like] the [{product}|{wear}] and would like to send it back",
        "can I exchange the [{product}|{wear}] for [another colour|a bigger one|a smaller one|a different model]?",
        "how long do I have to return the [{product}|{wear}]?",
        "I sent the [{product}|{wear}] back {days} ago, did the return arrive?",
        "you sent the [blue|wrong|black|grey] {wear}, I want [to swap|to exchange] them",
        "the return of my [{product}|{wear}] was refused, why?",
        "which box do I use to send the {product} back to you?",
    ),
    "account": (
        "I [forgot|lost|can not reset] my password",
        "the login [page|screen] says my [password|user name|email] is [wrong|unknown|too old]",
        "my account [has been|is|was] [locked|blocked|suspended] for {days}",
        "please change the email address [of my account|of my profile|that I sign in with]",
        "I want to [delete|close] my [account|profile] [for good|after {days}|this month]",
        "the [code|link] to [sign in|log in|confirm my email] never [comes|arrives|works]",
        "somebody else [logged in to|signed in to|got into|hacked] my account in {month}",
        "how do I [switch on|switch off|reset] two-step login?",
        "I have two accounts, can you merge [them|the profiles]?",
        "please update the [name|phone number|birthday] in my [account|profile]",
    ),
    "technical": (
        "the {device} [does not|will not] [turn on|start|charge|connect] [any more|since {month}|after {days}]",
        "my {device} shows [error|fault] code [12|31|40|77|E5|F3]",
        "the app [crashes|freezes|goes black] when I [open it|connect the {device}|update the {device}]",
        "the {device} [loses|drops] its [wifi|bluetooth] connection every [minute|hour|day]",
        "after the [update|new firmware] the {device} is [very slow|frozen|silent|stuck]",
        "the battery of the {device} [is empty|dies|gets hot] after [an hour|ten minutes|one day]",
        "how do I [reset|update|calibrate|pair] the {device}?",
        "the {device} makes a [loud|strange|grinding|high] noise when it runs",
        "the screen of my {device} [flickers|stays black|is frozen]",
        "which [driver|firmware|setting] does the {device} need to work with [Linux|Windows|my phone]?",
    ),
    "sales": (
        "do you [offer|give] a discount for {count} [{wear}|units of the {product}]?",
        "[please send|I would like|can I get] a [quote|price list|catalogue] for {count} units of the {product}",
        "which {product} do you recommend for [beginners|a small office|travel|children|a school]?",
        "is the {product} [still sold|available in red|in stock|coming back] [this month|in {month}]?",
        "before I buy the {product}: what is the difference [to|from] the [cheaper|newer|larger] model?",
        "we are a [school|hotel|club|clinic|start-up] and want to buy {count} {wear}",
        "will the {product} be [cheaper|on sale|on offer] in {month}?",
        "what does the {product} cost with [all extras|a longer warranty|a second battery]?",
        "could a [salesperson|consultant] call us about buying {count} of your {product} models?",
        "can I [see a demo of|try] the {product} before I buy [it|one]?",
    ),
}
TEAMS = tuple(_PATTERNS)


def draw(rng: Random, turn: int) -> Draft:
    """Word one ticket; `turn` picks the team so that the teams stay balanced."""
    team = TEAMS[turn % len(TEAMS)]
    body = expand(rng.choice(_PATTERNS[team]), rng, _SLOTS)
    start, end = rng.choice(_SLOTS["mood"]), rng.choice(_SLOTS["end"])
    text = vary_case(start + (body if body.endswith("?") else body + end), rng)
    return Draft(text=text, query=f"Team for this ticket: {text}", reference=team)
