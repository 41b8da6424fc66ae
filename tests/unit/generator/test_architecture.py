from __future__ import annotations

import numpy as np
import pytest
from shammah_chassis.errors import ArtifactError
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"model_type": "gpt2"}, "model_type"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "yarn"),
        ({"num_key_value_heads": 3}, "kv heads"),
        ({"vocab_size": None}, "no number"),
    ],
)
def test_a_config_that_the_graph_cannot_compute_is_refused_by_name(folder, change, word):
    config = load_json(folder / "config.json") | change
    with pytest.raises(ArtifactError, match=word):
        Architecture.from_config(config)


def test_the_older_spelling_of_rope_gives_the_same_tables(folder):
    config = load_json(folder / "config.json")
    old = {key: value for key, value in config.items() if key != "rope_parameters"} | {"rope_theta": 10000.0}
    for new_table, old_table in zip(
        Architecture.from_config(config).compute_rotary_tables(),
        Architecture.from_config(old).compute_rotary_tables(),
        strict=True,
    ):
        assert np.array_equal(new_table, old_table)
