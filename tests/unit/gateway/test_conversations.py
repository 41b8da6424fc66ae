from __future__ import annotations

from shammah_chassis.examples import Message
from shammah_gateway.conversations import Conversations, opening_of
from shammah_gateway.values import Query
from support.gateway import ask


class Clock:
    """A clock that only moves when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def first(text: str = "Hi", **changes: object) -> Query:
    return ask(text, **changes)


def later(text: str = "Hi", **changes: object) -> Query:
    turns = (Message("user", text), Message("assistant", "Hello"), Message("user", "And now?"))
    return ask(messages=turns, **changes)


def test_a_conversation_that_was_forwarded_at_its_first_turn_is_with_the_teacher_at_the_second() -> None:
    known = Conversations()
    assert not known.is_with_teacher(later())
    known.note_forwarded(first())
    assert known.is_with_teacher(later())
    assert not known.is_with_teacher(later("Another beginning"))


def test_a_first_turn_is_nobodys_even_when_the_same_words_were_forwarded_before() -> None:
    known = Conversations()
    known.note_forwarded(first())
    known.note_forwarded(first(conversation="session"))
    assert not known.is_with_teacher(first())
    assert not known.is_with_teacher(first(conversation="session"))


def test_the_callers_key_counts_more_than_how_it_begins() -> None:
    known = Conversations()
    known.note_forwarded(later(conversation="one"))
    assert known.is_with_teacher(later("Quite different", conversation="one"))
    assert not known.is_with_teacher(later(conversation="two"))
    assert not known.is_with_teacher(later())


def test_two_callers_never_share_a_conversation() -> None:
    known = Conversations()
    known.note_forwarded(later(conversation="one", user="ann"))
    assert not known.is_with_teacher(later(conversation="one", user="bob"))


def test_the_beginning_is_the_system_turns_and_the_first_user_turn() -> None:
    system, hi = Message("system", "Be brief."), Message("user", "Hi")
    assert opening_of((system, hi)) == opening_of((system, hi, Message("assistant", "Yes?"), Message("user", "Go on")))
    assert opening_of((system, hi)) != opening_of((hi,))
    assert opening_of((Message("user", "a"),)) != opening_of((Message("system", "a"),))


def test_only_so_many_conversations_are_kept_and_the_one_unused_longest_goes_first() -> None:
    known = Conversations(most=2)
    for name in ("a", "b", "a", "c"):
        known.note_forwarded(later(conversation=name))
    assert len(known) == 2
    kept = [name for name in ("a", "b", "c") if known.is_with_teacher(later(conversation=name))]
    assert kept == ["a", "c"]


def test_a_conversation_is_forgotten_when_it_rests_too_long_and_each_turn_keeps_it() -> None:
    clock = Clock()
    known = Conversations(max_age_seconds=10.0, now=clock)
    known.note_forwarded(later(conversation="used"))
    known.note_forwarded(later(conversation="left"))
    clock.now += 8.0
    known.note_forwarded(later(conversation="used"))
    clock.now += 8.0
    assert known.is_with_teacher(later(conversation="used"))
    assert not known.is_with_teacher(later(conversation="left"))
    known.note_forwarded(later(conversation="new"))
    assert len(known) == 2
