from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_generator.chat import encode_text, find_ends, load_tokenizer
from shammah_generator.constraint import MAX_LABELS, MAX_SCHEMA_BYTES, Constraint, ConstraintFactory
from shammah_generator.sampling import Chooser, Sampling
from shammah_generator.statistics import StatisticsBuilder
from shammah_generator.text import TextStream
from support.tiny import make_tiny_generator

VOCAB = 540  # more than the tokenizer has, and no multiple of 32
END = 2
CARD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "naïve 東京"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_generator(tmp_path_factory.mktemp("constraint"), vocab=VOCAB)


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny / "tokenizer.json")


@pytest.fixture(scope="module")
def factory(tokenizer):
    return ConstraintFactory(tokenizer, VOCAB, find_ends(tokenizer))


@pytest.fixture(scope="module")
def write(factory, tokenizer):
    """Return what writes a constrained response with logits that a function gives for the tokens so far."""

    def run(logits, *, limit=800, temperature=0.0, **constraint):
        sampling = Sampling(constraint=Constraint(**constraint), temperature=temperature, seed=1)
        guide = factory.compile(sampling.constraint)
        chooser, stream, ids, scores = Chooser(sampling, guide), TextStream(tokenizer), [], []
        text = ""
        while len(ids) < limit:
            scores.append(chooser.choose(logits(ids)))
            if scores[-1].token in find_ends(tokenizer):
                break
            ids.append(scores[-1].token)
            text += stream.push(scores[-1].token)
        return text + stream.flush(), guide.finished, scores

    return run


def roll(seed):
    """Return a model without any sense: other logits at each position."""
    random = np.random.default_rng(seed)
    return lambda _ids: (4 * random.standard_normal(VOCAB)).astype(np.float32)


def prefer(*tokens):
    """Return a model that always wants these tokens, the first one most."""
    logits = np.linspace(0, -1, VOCAB, dtype=np.float32)
    for place, token in enumerate(tokens):
        logits[token] = 30 - place
    return lambda _ids: logits


def nest(inner):
    names = st.text('abcäß東 "\\', min_size=1, max_size=4)
    objects = st.dictionaries(names, inner, max_size=3).map(
        lambda parts: {
            "type": "object",
            "properties": parts,
            "required": sorted(parts),
            "additionalProperties": False,
        }
    )
    return objects | inner.map(lambda items: {"type": "array", "items": items, "maxItems": 2})


SCHEMAS = st.recursive(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "integer", "minimum": -5, "maximum": 3000}])
    | st.integers(0, 6).map(lambda most: {"type": "string", "maxLength": most})
    | st.lists(st.text(max_size=6), min_size=1, max_size=4, unique=True).map(lambda texts: {"enum": texts}),
    nest,
    max_leaves=5,
)
LABELS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@settings(deadline=None, max_examples=60)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32), temperature=st.sampled_from([0.0, 1.0]))
def test_whatever_the_model_wants_the_response_is_json_that_satisfies_the_schema(write, schema, seed, temperature):
    text, finished, _ = write(roll(seed), json_schema=json.dumps(schema), temperature=temperature)
    assert finished
    jsonschema.validate(json.loads(text), schema)


@settings(deadline=None, max_examples=80)
@given(labels=LABELS, seed=st.integers(0, 2**32), temperature=st.sampled_from([0.0, 1.0]))
def test_whatever_the_model_wants_the_response_is_one_of_the_labels(write, tokenizer, labels, seed, temperature):
    # Every label also with an ending: one label starts another.
    both = tuple(dict.fromkeys(labels + [label + "s" for label in labels]))
    text, finished, scores = write(roll(seed), labels=both, temperature=temperature)
    assert finished
    assert text in both
    assert scores[-1].token in find_ends(tokenizer)


def test_a_model_with_random_weights_writes_json_that_satisfies_the_schema(write, tiny, tokenizer, reference):
    for question in ("Who is it?", "my card was lost", "東京"):
        prompt = encode_text(tokenizer, question)
        text, finished, scores = write(lambda ids, p=prompt: reference(tiny, p + ids)[-1], json_schema=json.dumps(CARD))
        assert finished
        jsonschema.validate(json.loads(text), CARD)
        assert any(score.forced for score in scores)


def test_where_one_label_starts_another_the_end_of_turn_decides(write, tokenizer):
    labels = ("book", "book a table")
    (space, *_) = encode_text(tokenizer, " ")
    assert write(prefer(END), labels=labels)[0] == "book"
    assert write(prefer(space), labels=labels)[0] == "book a table"


@pytest.mark.parametrize(
    "label", ["東京", "😀👍🏽", "Grüße", 'a"b\\c\n\t', "<|im_end|>", "see <|endoftext|>.", "/x/ | y", "\u2028\x7f"]
)
def test_a_label_is_written_to_the_letter(write, label):
    for seed in range(3):
        assert write(roll(seed), labels=(label,))[0] == label


def test_a_character_of_several_tokens_can_be_finished_only_as_that_character(factory, tokenizer):
    guide = factory.compile(Constraint(labels=("京", "亮")))  # both start with the bytes e4 ba
    tokens = encode_text(tokenizer, "亮")
    assert len(tokens) > 1
    for token in tokens:
        assert not guide.mask()[END]
        assert token in guide.allowed()
        guide.accept(token)
    assert guide.finished


def test_a_response_cut_by_its_limit_is_the_beginning_of_the_whole_one(write):
    constraint = {"json_schema": json.dumps(CARD)}
    whole, finished, scores = write(roll(3), **constraint)
    cut, cut_finished, cut_scores = write(roll(3), limit=5, **constraint)
    assert (finished, cut_finished) == (True, False)
    assert cut_scores == scores[:5]
    assert len(cut) < len(whole)
    assert whole.startswith(cut)


def test_blanks_do_not_go_on_for_ever(write, tokenizer):
    blanks = sorted({encode_text(tokenizer, text)[0] for text in (" ", "\n", "\t")})
    (close,) = encode_text(tokenizer, "}")
    text, finished, _ = write(prefer(*blanks, close), json_schema=json.dumps(CARD | {"required": []}))
    assert finished
    assert json.loads(text) == {}
    assert len(text) == 18


def test_an_end_is_allowed_only_where_the_text_may_end(factory, tokenizer):
    guide = factory.compile(Constraint(labels=("yes",)))
    ends = find_ends(tokenizer)
    assert not guide.mask()[list(ends)].any()
    for token in encode_text(tokenizer, "yes"):
        assert not guide.finished
        guide.accept(token)
    assert guide.finished
    assert set(guide.allowed()) == ends
    guide.accept(END)
    assert guide.finished


def test_tokens_beyond_the_tokenizer_are_never_allowed(factory, tokenizer):
    guide = factory.compile(Constraint(json_schema='{"type": "string"}'))
    guide.accept(encode_text(tokenizer, '"')[0])
    mask = guide.mask()
    size = tokenizer.get_vocab_size()
    assert (mask.shape, mask.dtype) == ((VOCAB,), np.bool_)
    assert mask[:size].sum() > size / 2
    assert not mask[size:].any()
    assert np.array_equal(np.flatnonzero(mask), guide.allowed())


def test_a_forced_answer_does_not_look_sure(write, tokenizer):
    (no,) = encode_text(tokenizer, " and")
    _, _, scores = write(prefer(no), labels=("yes",))
    row = prefer(no)([]).astype(np.float64)
    logs = row - np.log(np.exp(row).sum())
    builder = StatisticsBuilder(prompt_tokens=1, constrained=True)
    for score in scores:
        builder.add(score)
    made = builder.build()
    assert made.constraint.forced_tokens == made.length == len(scores)
    assert made.sum_logprob == pytest.approx(sum(logs[score.token] for score in scores), rel=1e-5)
    assert made.sum_logprob < -25 * len(scores)
    assert made.constraint.unconstrained_sum_logprob == pytest.approx(len(scores) * logs[no], abs=1e-4)
    # What it wanted most of all that was allowed: never more than everything that was.
    assert made.sum_logprob <= made.constraint.allowed_sum_logprob < 0


def test_what_the_model_wants_anyway_is_not_forced(write, tokenizer):
    yes = encode_text(tokenizer, "yes")
    free = [*yes, END]
    _, _, scores = write(lambda ids: prefer(free[len(ids)])([]), labels=("yes", "no"))
    assert [score.token for score in scores] == free
    assert not any(score.forced for score in scores)
    assert all(math.isclose(score.allowed_logprob, 0, abs_tol=1e-4) for score in scores)


def test_guides_of_one_constraint_do_not_disturb_each_other(factory, tokenizer):
    constraint = Constraint(labels=("yes", "no"))
    first, second = factory.compile(constraint), factory.compile(constraint)
    before = second.allowed()
    for token in encode_text(tokenizer, "no"):
        first.accept(token)
    assert first.finished
    assert np.array_equal(second.allowed(), before)


def test_a_token_that_is_not_allowed_ends_one_guide_and_no_other(factory, tokenizer):
    constraint = Constraint(labels=("yes", "no"))
    guide, other = factory.compile(constraint), factory.compile(constraint)
    with pytest.raises(InvalidInputError, match="can't be followed"):
        guide.accept(encode_text(tokenizer, "quick")[0])
    with pytest.raises(InvalidInputError, match="can't be followed"):
        guide.mask()
    assert not guide.finished
    assert other.allowed().size
    assert factory.compile(constraint).allowed().size


def test_many_constraints_from_many_threads_compile_to_what_was_asked(factory, tokenizer):
    def check(number):
        label = f"{number % 50} euros"
        guide = factory.compile(Constraint(labels=(label,)))
        for token in encode_text(tokenizer, label):
            guide.accept(token)
        return guide.finished

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(200)))


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({}, "json_schema or labels"),
        ({"json_schema": "{}", "labels": ("a",)}, "not both"),
        ({"labels": ("a", "")}, "at least one character"),
        ({"labels": ("x",) * (MAX_LABELS + 1)}, "1001 labels; allowed: 1 to 1000"),
        ({"labels": ("x" * 70_000,)}, "70000 bytes together; allowed: 65536"),
        ({"labels": ("\ud800",)}, "surrogate"),
        ({"json_schema": '{"title": "' + "x" * MAX_SCHEMA_BYTES + '"}'}, "bytes; allowed: 65536"),
        ({"json_schema": "{"}, "not JSON"),
        ({"json_schema": "[" * 60_000}, "nested too deeply"),
        ({"json_schema": "true"}, "must be a JSON object"),
    ],
)
def test_a_constraint_beyond_what_is_allowed_is_refused_with_what_is(values, allowed):
    with pytest.raises(InvalidInputError, match=allowed):
        Constraint(**values)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"not": {"type": "string"}}, 'Unimplemented keys: ."not"'),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$ref": "#"}, "can't be compiled"),
        ({"$ref": "http://localhost:1/x.json"}, "does not fetch"),
        ({"type": "integer", "minimum": 4, "maximum": 3}, "can't be compiled"),
        ({"type": "integer", "multipleOf": 999983, "minimum": 3, "maximum": 10**15}, "fuel"),
        (json.loads('{"items":' * 200 + "{}" + "}" * 200), "recursion limit"),
    ],
)
def test_a_schema_that_cannot_be_compiled_is_refused_in_one_short_line(factory, schema, reason):
    with pytest.raises(InvalidInputError, match=reason) as caught:
        factory.compile(Constraint(json_schema=json.dumps(schema)))
    assert caught.value.message.startswith("json_schema can't be compiled: ")
    assert len(caught.value.message) < 350
    assert "\n" not in caught.value.message


def test_a_schema_that_proves_too_large_while_it_is_followed_ends_its_response_with_an_error(write):
    parts = {f"part {number}": {"type": "string", "minLength": 1, "maxLength": 50} for number in range(900)}
    with pytest.raises(InvalidInputError, match=r"can't be followed: .* items"):
        write(roll(0), json_schema=json.dumps({"type": "object", "properties": parts}))


def test_as_many_labels_as_are_allowed_can_be_chosen_from(write):
    labels = tuple(f"intent {number * 7919 % 1000}" for number in range(MAX_LABELS))
    assert write(roll(5), labels=labels)[0] in labels


def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer):
    with pytest.raises(ArtifactError, match="ends a response"):
        ConstraintFactory(tokenizer, VOCAB, frozenset())
    small = ConstraintFactory(tokenizer, 100, frozenset({END}))
    with pytest.raises(ArtifactError, match="vocab size too small"):
        small.compile(Constraint(labels=("a",)))
