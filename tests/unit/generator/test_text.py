from __future__ import annotations

import pytest
from shammah_generator.chat import encode_text, load_tokenizer
from shammah_generator.text import TextStream
from tokenizers.pre_tokenizers import ByteLevel

TEXTS = ["The capital is Paris.", "naïve café €5", "東京 と 京都", "👩‍👩‍👧‍👦 und 🎉!", "  two  spaces\n\nand lines"]


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder / "tokenizer.json")


def spell_bytes(tokenizer, text):
    """Return one token for each byte, the hardest case for a stream."""
    spelled = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]
    return [tokenizer.token_to_id(letter) for letter in spelled]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("encode", [encode_text, spell_bytes])
def test_the_pieces_are_whole_characters_and_make_up_the_text(tokenizer, text, encode):
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in encode(tokenizer, text)]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + stream.flush() == text


def test_half_a_character_at_the_end_is_dropped(tokenizer):
    stream = TextStream(tokenizer)
    ids = spell_bytes(tokenizer, "ok €")
    assert "".join(map(stream.push, ids[:-1])) + stream.flush() == "ok "


def test_bytes_that_never_become_a_character_do_not_block_the_stream(tokenizer):
    stream = TextStream(tokenizer)
    (lonely,) = spell_bytes(tokenizer, "€")[1:2]
    out = "".join(map(stream.push, [lonely] * 6)) + "".join(map(stream.push, spell_bytes(tokenizer, "abc")))
    assert out == "\ufffd" * 6 + "abc"


@pytest.mark.parametrize("stop", ["END", "E", "\n\n", "東京"])
def test_a_stop_string_never_shows_not_even_in_part(tokenizer, stop):
    stream = TextStream(tokenizer, stop=[stop, "never there"])
    out = ""
    for token in spell_bytes(tokenizer, f"before {stop} after"):
        out += stream.push(token)
        assert "before ".startswith(out)
        if stream.stopped:
            break
    assert stream.stopped
    assert out + stream.flush() == "before "


def test_the_earliest_of_several_stops_wins(tokenizer):
    stream = TextStream(tokenizer, stop=["c", "b"])
    pieces = []
    for token in encode_text(tokenizer, "abc"):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    assert "".join(pieces) == "a"


def test_what_only_looked_like_a_stop_comes_out_later(tokenizer):
    stream = TextStream(tokenizer, stop=["STOP"])
    pieces = [stream.push(token) for token in spell_bytes(tokenizer, "a STO")]
    assert "".join(pieces) == "a "
    assert stream.push(spell_bytes(tokenizer, "x")[0]) == "STOx"
    [stream.push(token) for token in spell_bytes(tokenizer, "ST")]
    assert stream.flush() == "ST"


def test_special_tokens_give_no_text(tokenizer):
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in (0, 1, 2)] == ["", "", ""]
