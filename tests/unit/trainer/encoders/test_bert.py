from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from shammah_chassis.encoder import TextTokenizer, pad_rows
from shammah_chassis.errors import ArtifactError
from shammah_trainer.encoders.bert import load_hugging_face, pool_mean, unit_vectors
from support.encoders import tiny_encoder
from transformers import BertModel


def test_the_body_equals_the_model_of_transformers_on_padded_pairs() -> None:
    folder = tiny_encoder()
    rows = TextTokenizer(folder / "tokenizer.json", max_tokens=64).encode([("a fox", "a lazy dog"), ("yes", "no")])
    tensors = {name: torch.from_numpy(array) for name, array in pad_rows(rows).items()}
    body, reference = load_hugging_face(folder), BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = body(*tensors.values())
        theirs = reference(**tensors).last_hidden_state
    real = tensors["attention_mask"].bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)


def test_pooling_ignores_padding_and_gives_unit_vectors() -> None:
    hidden = torch.tensor([[[3.0, 4.0], [100.0, 0.0]]])
    pooled = pool_mean(hidden, torch.tensor([[1, 0]]))
    assert pooled.tolist() == [[3.0, 4.0]]
    assert unit_vectors(pooled)[0].tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"model_type": "llama"}, "llama"), ({"hidden_act": "relu"}, "relu"), ({"hidden_size": 48}, "don't fit")],
)
def test_another_architecture_is_refused_by_name(change: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ArtifactError, match=message):
        load_hugging_face(folder)
