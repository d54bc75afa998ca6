"""Model folders with a `config.json` and no weights: vLLM fills them with dummy ones (`--load-format dummy`).

What a step takes depends on the shapes, not on the values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.shared.files import write_text
from twin import UserError
from twin.inputs import read_json

TINY_LLAMA = "tiny-llama"

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
_QWEN = {**_LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6}

#: Shapes by model name, as `ServingProfile.model` has it. Llama and Qwen: the `config.json` of the published weights.
SHAPES: dict[str, dict[str, Any]] = {
    # Small enough for one core, large enough that the engine is slower than its HTTP server.
    TINY_LLAMA: {
        **_LLAMA,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "vocab_size": 2048,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        **_LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **_QWEN,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
    },
}


def model_shape(model: str, config_file: str | None = None) -> dict[str, Any]:
    """The `config.json` of a model.

    Parameters
    ----------
    model : str
        Name in `SHAPES`.
    config_file : str, optional
        A `config.json` to take in its place.

    Raises
    ------
    UserError
        If there is no such file, or the model is unknown and no file is given.
    """
    if config_file is None:
        if model not in SHAPES:
            raise UserError(
                f"model {model}: its shape is unknown; give its config.json as engine.model_config=FILE "
                f"(known are {', '.join(sorted(SHAPES))})"
            )
        return dict(SHAPES[model])
    shape = read_json(config_file, "a config.json of a model", key="engine.model_config")
    needed = ("architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not isinstance(shape, dict) or key not in shape]
    if missing:
        raise UserError(f"{config_file}: no config.json of a model, it lacks {', '.join(missing)}")
    return dict(shape)


def write_model(shape: dict[str, Any], folder: Path) -> Path:
    """Write the model folder and return it."""
    write_text(folder / "config.json", json.dumps(shape, indent=1) + "\n")
    return folder
