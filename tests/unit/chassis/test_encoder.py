from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from shammah_chassis.encoder import EncoderSession, Precision, TextTokenizer, pad_rows, plan_batches, precision_of
from shammah_chassis.errors import ArtifactError, InvalidInputError
from support.encoders import base_router


@pytest.fixture(scope="module", params=["fp32", "int8"])
def session(request: pytest.FixtureRequest) -> EncoderSession:
    return EncoderSession(base_router()[0], threads=1, max_tokens=16, precision=request.param)


def test_batches_hold_every_row_once_and_keep_both_limits() -> None:
    lengths = [5, 90, 7, 7, 40, 1, 200, 3]
    batches = list(plan_batches(lengths, max_rows=3, max_padded_tokens=100))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= 3 for batch in batches)
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 100 for batch in batches)


def test_the_second_text_of_a_pair_is_segment_one_and_padding_is_masked() -> None:
    rows = TextTokenizer(base_router()[0] / "tokenizer.json", max_tokens=32).encode([("a fox", "a dog"), ("a", "b")])
    padded = pad_rows(rows)
    assert padded["token_type_ids"][0].tolist()[: len(rows[0].ids)] == list(rows[0].types)
    assert set(rows[0].types) == {0, 1}
    assert padded["attention_mask"].sum(axis=1).tolist() == [len(row.ids) for row in rows]


def test_a_text_gives_the_same_vector_alone_and_in_a_mixed_batch(session: EncoderSession) -> None:
    texts = ["the lazy dog", "a", "book a table for two people at seven in the evening", "yes"]
    together = session.embed(texts)
    alone = np.concatenate([session.embed([text]) for text in texts])
    assert together.shape == (4, 32)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_only_texts_beyond_the_limit_are_flagged_as_truncated(session: EncoderSession) -> None:
    assert session.run(["a dog", "a dog " * 20]).truncated == (False, True)


def test_no_texts_embed_to_nothing_but_are_refused_by_run(session: EncoderSession) -> None:
    assert session.embed([]).shape == (0, 0)
    with pytest.raises(InvalidInputError):
        session.run([])


def test_extra_inputs_with_another_number_of_rows_are_refused(session: EncoderSession) -> None:
    with pytest.raises(InvalidInputError, match="3 rows for 1"):
        session.run(["a"], {"category": np.zeros((3, 2), dtype=np.float32)})


def test_the_tokens_of_a_text_are_the_same_alone_and_among_others() -> None:
    tokenizer = TextTokenizer(base_router()[0] / "tokenizer.json", max_tokens=8)
    texts = ["a fox", ("a fox", "a dog"), "the lazy dog " * 9]
    assert [tokenizer.encode([text])[0] for text in texts] == tokenizer.encode(texts)


def test_a_version_is_served_in_the_precision_that_it_names() -> None:
    assert (precision_of({}), precision_of({"precision": "int8"})) == ("fp32", "int8")
    with pytest.raises(ArtifactError, match="int4"):
        precision_of({"precision": "int4"})


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["graph.onnx", "tokenizer.json", "model.safetensors"])
def test_a_missing_or_broken_file_is_a_bad_artifact(name: str, precision: Precision, tmp_path: Path) -> None:
    folder = tmp_path / "version"
    shutil.copytree(base_router()[0], folder)
    (folder / name).write_bytes(b"\x08broken")
    with pytest.raises(ArtifactError):
        EncoderSession(folder, threads=1, max_tokens=16, precision=precision)
    (folder / name).unlink()
    with pytest.raises(ArtifactError):
        EncoderSession(folder, threads=1, max_tokens=16, precision=precision)
