"""What is masked, what is left alone, and how long it takes."""

from __future__ import annotations

import builtins
import importlib.util
import json
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example, Message, Provenance
from shammah_gateway.consent.masking import Masker, mask_example, mask_messages, mask_value, open_masker

needs_pii = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("datafog", "stdnum")),
    reason="the extra 'pii' is not installed: pip install 'shammah-gateway[pii]'",
)


@pytest.fixture
def masker() -> Masker:
    return open_masker()


@needs_pii
@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "write to <EMAIL_ADDRESS>."),
        ("<jane@example.com>, (bob@example.org)", "<<EMAIL_ADDRESS>>, (<EMAIL_ADDRESS>)"),
        ("call +44 20 7946 0958 or (212) 555-0123", "call <PHONE_NUMBER> or <PHONE_NUMBER>"),
        ("212-555-0123", "<PHONE_NUMBER>"),
        ("card 4111 1111 1111 1111!", "card <CREDIT_CARD>!"),
        ("card 4111-1111-1111-1111", "card <CREDIT_CARD>"),
        ("card 4111111111111111", "card <CREDIT_CARD>"),
        ("IBAN GB82 WEST 1234 5698 7654 32 THANKS", "IBAN <IBAN_CODE> THANKS"),
        ("IBAN DE89370400440532013000", "IBAN <IBAN_CODE>"),
        ("ssn 219-09-9999", "ssn <US_SSN>"),
        ("from 192.168.1.12 to 2001:db8:0:1:1:1:1:1", "from <IP_ADDRESS> to <IP_ADDRESS>"),
        ('{"mail": "a@b.com", "n": [1]}', '{"mail": "<EMAIL_ADDRESS>", "n": [1]}'),
    ],
)
def test_personal_data_with_a_form_is_masked(masker: Masker, text: str, masked: str) -> None:
    assert masker.mask(text)[0] == masked
    # What is masked stays as it is.
    assert masker.mask(masked) == (masked, {})


@needs_pii
@pytest.mark.parametrize(
    "text",
    [
        "What is 55512 * 67890? 3768710680",
        "2125550123 + 4111111111111112 = 4111113236661235",
        "On 1999-12-31 at 19:30, table 4, ticket #48211, 12/05/2026",
        "The capital of France is Paris. Version 1.2.3, pi is 3.14159",
        "def f(a: int) -> int:\n    return a @ b[::2]",
        "std::vector<int> x; a::b::c::d; ratio 16:9; 10:20:30:40",
        "219099999 people; order 123456789",
        "GB82 WEST 1234 5698 7654 33 is no right IBAN",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(masker: Masker, text: str) -> None:
    assert masker.mask(text) == (text, {})


@needs_pii
def test_kinds_are_counted(masker: Masker) -> None:
    assert masker.mask("a@b.com c@d.org 4111111111111111")[1] == {"EMAIL_ADDRESS": 2, "CREDIT_CARD": 1}
    masker.mask("e@f.net")
    assert dict(masker.counts) == {"EMAIL_ADDRESS": 3, "CREDIT_CARD": 1}


@needs_pii
def test_a_word_made_to_be_slow_is_masked_as_a_whole(masker: Masker) -> None:
    # The pattern alone takes seconds for this (its time grows with the square); the test's own limit would end it.
    text = f"see {'!#$%&' * 20_000}@ end"
    assert masker.mask(text)[0] == "see <EMAIL_ADDRESS> end"
    for filler in ("a@", "1 ", "1.", "+1-", "1234567890", "!#$%&", "GB82 ", "::1", "(1"):
        masker.mask(filler * 10_000)


@needs_pii
def test_every_text_of_an_example_is_masked_and_nothing_else(masker: Masker) -> None:
    mail = "a@b.com"
    example = Example(
        query=(Message("system", f"s {mail}"), Message("user", f"q {mail}")),
        response=f"r {mail}",
        category="mails",
        grader="json",
        provenance=Provenance(origin="teacher", teacher="t@x.com"),
        answers=(f"x {mail}",),
        accepted={"mail": [mail, {"to": mail}], "n": 1},
        student_attempt=mail,
        user="bob",
        request="r1",
    )
    masked = mask_example(masker, example)
    row = masked.to_json()
    assert mail not in json.dumps(row) and masked.provenance == example.provenance
    assert row["accepted"] == {"mail": ["<EMAIL_ADDRESS>", {"to": "<EMAIL_ADDRESS>"}], "n": 1}
    assert (masked.category, masked.user, masked.request) == ("mails", "bob", "r1")
    assert mask_example(masker, masked) == masked
    assert mask_messages(masker, example.query) == masked.query
    assert mask_value(masker, [mail, 1, None, {mail: True}]) == ["<EMAIL_ADDRESS>", 1, None, {mail: True}]


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("datafog"):
            raise ModuleNotFoundError("No module named 'datafog'", name="datafog")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InvalidInputError, match=r"pip install 'shammah-gateway\[pii\]'"):
        open_masker()
