"""LoRA adapters made on the spot, in the PEFT layout that vLLM reads.

Adapters of one rank share a folder: what loading one takes depends on its shape, and vLLM tells adapters apart by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.shared.files import write_text, written

#: The projections of the published runs' adapters.
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")


def projection_sizes(shape: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(input size, output size) of each target projection of a Llama-like model."""
    hidden, heads = int(shape["hidden_size"]), int(shape["num_attention_heads"])
    head_size = int(shape.get("head_dim") or hidden // heads)
    kv = int(shape.get("num_key_value_heads") or heads) * head_size
    return {
        "q_proj": (hidden, heads * head_size),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (heads * head_size, hidden),
    }


def write_adapters(shape: dict[str, Any], ranks: Sequence[int], folder: Path) -> dict[int, Path]:
    """Make one adapter for each different rank.

    Parameters
    ----------
    shape : dict
        The model's `config.json`.
    ranks : sequence of int
    folder : Path

    Returns
    -------
    dict
        The folder of each rank.
    """
    return {rank: _write_adapter(shape, rank, folder / f"rank-{rank}") for rank in sorted(set(ranks))}


def _write_adapter(shape: dict[str, Any], rank: int, folder: Path) -> Path:
    weights = folder / "adapter_model.safetensors"
    if weights.is_file():
        return folder
    draws = np.random.Generator(np.random.Philox(key=[0, rank]))
    tensors = {}
    for layer in range(int(shape["num_hidden_layers"])):
        for module, (inputs, outputs) in projection_sizes(shape).items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{key}.lora_A.weight"] = _half(draws, (rank, inputs))
            tensors[f"{key}.lora_B.weight"] = _half(draws, (outputs, rank))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGET_MODULES),
    }
    write_text(folder / "adapter_config.json", json.dumps(config, indent=1) + "\n")
    with written(weights) as temporary:
        write_safetensors(tensors, temporary)
    return folder


def _half(draws: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return (0.01 * draws.standard_normal(size, dtype=np.float32)).astype(np.float16)


def write_safetensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write half-precision tensors in the safetensors format: length of the header, JSON header, raw data.

    The package that reads and writes the format comes with vLLM and may not be in the Python that this runs in.
    """
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    # Readers want the data aligned to 8 bytes; spaces fill the header up.
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, dtype="<f2").tobytes())
