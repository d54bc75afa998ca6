"""A model's sizes from its config.json, against what is published of the models."""

import json
from pathlib import Path

import pytest

from bench.estimating.gpus import GPUS, gpu_named
from bench.estimating.shape import load_shape, shipped_shapes
from twin import UserError

ROOT = Path(__file__).parents[3]
#: Parameters in billions, as the models' makers state them.
PARAMETERS = {
    "llama-3.1-8b": 8.03, "llama-3.1-70b": 70.6, "mistral-7b": 7.25, "qwen-2.5-7b": 7.62, "qwen-2.5-14b": 14.8, "qwen-2.5-32b": 32.8,
    "qwen-3-4b": 4.02, "qwen-3-8b": 8.19, "qwen-3-14b": 14.8, "qwen-3-32b": 32.8, "qwen-3-30b-a3b": 30.5,
}  # fmt: skip


@pytest.mark.parametrize("name", shipped_shapes())
def test_a_model_has_as_many_parameters_as_its_makers_say(name: str) -> None:
    shape = load_shape(name)
    assert (shape.linear_weights + shape.vocabulary_weights) / 1e9 == pytest.approx(PARAMETERS[name], rel=0.005)


def test_kv_cache_and_slots_of_the_measured_models_by_hand() -> None:
    """Two matrices of 8 KV heads x 128 x 32 layers in 16 bits; for a rank, inputs + outputs of the seven projections of each layer."""
    llama, qwen = load_shape("llama-3.1-8b"), load_shape("qwen-2.5-7b")
    assert llama.kv_bytes(1) == 2 * 8 * 128 * 32 * 2
    assert qwen.kv_bytes(1) == 2 * 4 * 128 * 28 * 2
    projections = (4096 + 4096) + 2 * (4096 + 1024) + (4096 + 4096) + 3 * (4096 + 14336)
    assert llama.slot_bytes(1) == 2 * (32 * projections + 2 * (128256 + 4096))
    assert qwen.slot_bytes(1) == 2 * 28 * ((3584 + 3584) + 2 * (3584 + 512) + (3584 + 3584) + 3 * (3584 + 18944))


def test_gpus_that_share_layers_share_weights_and_kv_cache() -> None:
    shape = load_shape("llama-3.1-70b")
    assert shape.weight_bytes(2.0, 4) * 4 == shape.weight_bytes(2.0, 1)
    assert shape.kv_bytes(4) * 4 == shape.kv_bytes(1)
    # Eight KV heads on sixteen GPUs: each keeps one.
    assert shape.kv_bytes(16) == shape.kv_bytes(8)
    # One of the two matrices of each layer is on every GPU.
    assert shape.slot_bytes(1) / 4 < shape.slot_bytes(4) < shape.slot_bytes(1)


def test_eight_bits_halve_the_layers_and_not_the_vocabulary() -> None:
    shape = load_shape("qwen-2.5-7b")
    assert shape.weight_bytes(2.0, 1) - shape.weight_bytes(1.0, 1) == shape.linear_weights


def test_only_old_engines_keep_room_for_new_words() -> None:
    llama = load_shape("llama-3.1-8b")
    assert llama.new_words_bytes((0, 8, 5)) == 3 * 256 * 4096 * 2
    assert llama.new_words_bytes((0, 12, 0)) == 0
    assert load_shape("qwen-2.5-7b").new_words_bytes((0, 8, 5)) == 0


def written(folder: Path, **changes: object) -> Path:
    data = json.loads((ROOT / "bench/estimating/shapes/mistral-7b.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return folder


@pytest.mark.parametrize("repository", [True, False])
def test_a_folder_with_a_config(repository: bool, tmp_path: Path) -> None:
    folder = written(tmp_path, **({} if repository else {"name_or_path": None}))
    shape = load_shape(str(folder))
    assert shape.name == ("mistralai/Mistral-7B-Instruct-v0.3" if repository else tmp_path.name)
    assert (shape.layers, shape.kv_heads, shape.head_dim) == (32, 8, 128)
    # The tables know its layers as Llama's.
    assert json.loads(shape.config)["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architectures=.*profiles are estimated for"),
        ({"architectures": None}, "architectures=None"),
        ({"hidden_size": None}, "hidden_size=None must be a whole number"),
        ({"hidden_size": 0}, "hidden_size=0 must be a whole number, 1 or more"),
        ({"num_hidden_layers": 32.5}, "num_hidden_layers=32.5 must be a whole number"),
        ({"num_key_value_heads": 7}, "num_key_value_heads=7 must divide num_attention_heads=32"),
        ({"vocab_size": 10**12}, "vocab_size=1000000000000"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes' must be true or false"),
    ],
)
def test_what_is_wrong_with_a_config_is_told(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        load_shape(str(written(tmp_path, **changes)))


@pytest.mark.parametrize("model", ["gpt-9", "/nowhere/at/all"])
def test_an_unknown_model_is_told_with_the_known_ones(model: str) -> None:
    with pytest.raises(UserError, match=r"no such model; known by name are .*mistral-7b"):
        load_shape(model)


def test_a_gpu_by_the_beginning_of_its_name() -> None:
    assert gpu_named("A100") is GPUS["a100-80gb"]
    assert gpu_named("l40s-48gb") is GPUS["l40s-48gb"]
    assert gpu_named("h100-64gb").memory_gib < gpu_named("h100").memory_gib
    with pytest.raises(UserError, match=r"gpu=h10: not known; there are a100-80gb"):
        gpu_named("h10")
    with pytest.raises(UserError, match=r"is a100-80gb meant"):
        gpu_named("a100-80")
