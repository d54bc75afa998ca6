"""What of a model's `config.json` decides its memory and its steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from twin import UserError
from twin.inputs import parse_json, plain_text, read_text
from twin.numbers import shown, whole

_WHAT = "a model's config.json (Hugging Face)"
# No model has more of anything that is counted here.
_MOST = 10**7
#: Architectures of plain decoder layers, and the one whose kernels theirs are: Mistral's layers are Llama's.
KERNELS_OF = {
    "LlamaForCausalLM": "LlamaForCausalLM",
    "MistralForCausalLM": "LlamaForCausalLM",
    "Qwen2ForCausalLM": "Qwen2ForCausalLM",
    "Qwen3ForCausalLM": "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM": "Qwen3MoeForCausalLM",
}
#: vLLM gives these slots for adapters of the embedding and of the output layer too (`embedding_modules` of its model classes).
WITH_EMBEDDING_LORA = frozenset({"LlamaForCausalLM", "MistralForCausalLM"})
#: Words of an adapter's own (`lora_extra_vocab_size`, its default), and the first version without them.
NEW_WORDS, WITHOUT_NEW_WORDS = 256, (0, 12)
BYTES_16_BIT = 2


@dataclass(frozen=True)
class ModelShape:
    """A decoder's sizes.

    Attributes
    ----------
    name : str
        What `vllm serve` is given.
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary : int
        `intermediate` is one expert's in a mixture of experts.
    experts : int
        In each layer; 0 for a dense model.
    context : int
        `max_position_embeddings`.
    tied : bool
        The output layer's weights are the embedding's.
    config : str
        The JSON text that kernel tables are asked with.
    """

    name: str
    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    experts: int
    context: int
    tied: bool
    config: str

    @property
    def projections(self) -> tuple[tuple[int, int, bool], ...]:
        """Linear layers of one decoder layer that take adapters, as (inputs, outputs, whether outputs are split by tensor parallelism).

        The experts of a mixture take none (vLLM up to 0.11; later versions can).
        """
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = ((self.hidden, queries, True), (self.hidden, keys, True), (self.hidden, keys, True))
        block = (*attention, (queries, self.hidden, False))
        if self.experts:
            return block
        gate = (self.hidden, self.intermediate, True)
        return (*block, gate, gate, (self.intermediate, self.hidden, False))

    @property
    def linear_weights(self) -> int:
        """Parameters of the decoder layers' matrices, which `dtype=fp8` halves."""
        per_layer = sum(inputs * outputs for inputs, outputs, _ in self.projections)
        if self.experts:
            per_layer += self.experts * (3 * self.hidden * self.intermediate + self.hidden)
        return self.layers * per_layer

    @property
    def vocabulary_weights(self) -> int:
        """Parameters of embedding and output layer."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def weight_bytes(self, weight_bytes: float, tp: int) -> float:
        """Bytes of weights on one GPU, where the decoder layers' have `weight_bytes` each."""
        return (self.linear_weights * weight_bytes + self.vocabulary_weights * BYTES_16_BIT) / tp

    def kv_bytes(self, tp: int) -> float:
        """Bytes of KV cache that a token takes on one GPU; KV heads that are fewer than GPUs are kept on several."""
        return 2 * max(1, self.kv_heads // tp) * self.head_dim * BYTES_16_BIT * self.layers

    def slot_bytes(self, tp: int) -> float:
        """Bytes that one adapter slot takes on one GPU for each of its ranks, as vLLM allots them.

        Of the two matrices of a layer that is split by its outputs the second is split, by its inputs the first.
        """
        per_layer = sum(
            inputs + outputs / tp if by_outputs else inputs / tp + outputs
            for inputs, outputs, by_outputs in self.projections
        )
        ends = 2 * (self.vocabulary + self.hidden) if self.architecture in WITH_EMBEDDING_LORA else 0
        return (per_layer * self.layers + ends) * BYTES_16_BIT

    def new_words_bytes(self, version: tuple[int, ...]) -> float:
        """Bytes that a slot takes on top, whatever its rank: vLLM before 0.12 kept room for words that an adapter adds, in three tables."""
        if self.architecture not in WITH_EMBEDDING_LORA or version >= WITHOUT_NEW_WORDS:
            return 0.0
        return 3.0 * NEW_WORDS * self.hidden * BYTES_16_BIT


def shipped_shapes() -> list[str]:
    """Names of the models whose shape is in the package, such as `llama-3.1-8b`."""
    return sorted(entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json"))


def load_shape(name_or_folder: str) -> ModelShape:
    """The shape of a model by name, or from a folder with its `config.json`, or from that file.

    Raises
    ------
    UserError
        For an unknown name, a file that is none, or an architecture that is not known here.
    """
    path, folder = Path(name_or_folder), name_or_folder
    if name_or_folder in shipped_shapes():
        text, where = (_folder() / f"{name_or_folder}.json").read_text(encoding="utf-8"), name_or_folder
    elif path.is_dir() or name_or_folder.endswith(".json"):
        folder = path.resolve().name if path.is_dir() else path.resolve().parent.name
        path = path / "config.json" if path.is_dir() else path
        text, where = read_text(path, _WHAT, key="model"), str(path)
    else:
        raise UserError(
            f"model={name_or_folder}: no such model; known by name are {', '.join(shipped_shapes())}, or give the "
            "folder that has the model's config.json"
        )
    data = parse_json(text, where, _WHAT)
    if not isinstance(data, dict):
        raise UserError(f"{where}: must be an object; it is to be {_WHAT}")
    return _shape(data, where, folder)


def _shape(data: dict[str, Any], where: str, folder: str) -> ModelShape:
    architectures = data.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else architectures
    if not isinstance(architecture, str) or architecture not in KERNELS_OF:
        raise UserError(
            f"{where}: architectures={shown(architectures)}: profiles are estimated for {', '.join(sorted(KERNELS_OF))}"
        )

    def count(key: str, default: int | None = None, at_least: int = 1) -> int:
        value = data.get(key)
        return whole(f"{where}: {key}", default if value is None else value, at_least=at_least, at_most=_MOST)

    hidden, heads = count("hidden_size"), count("num_attention_heads")
    experts = count("num_experts", 0, at_least=0)
    kv_heads = count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise UserError(f"{where}: num_key_value_heads={kv_heads} must divide num_attention_heads={heads}")
    tied = data.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise UserError(f"{where}: tie_word_embeddings={shown(tied)} must be true or false")
    name = plain_text(f"{where}: name_or_path", data.get("name_or_path") or data.get("_name_or_path") or folder)
    kernels = {**data, "architectures": [KERNELS_OF[architecture]]}
    kernels.pop("quantization_config", None)
    return ModelShape(
        name=name,
        architecture=architecture,
        hidden=hidden,
        layers=count("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=count("head_dim", max(1, hidden // heads)),
        intermediate=count("moe_intermediate_size" if experts else "intermediate_size"),
        vocabulary=count("vocab_size"),
        experts=experts,
        context=count("max_position_embeddings"),
        tied=tied,
        config=json.dumps(kernels),
    )


def _folder() -> Any:  # noqa: ANN401  # importlib's Traversable has no public name in Python 3.11
    return resources.files("bench") / "estimating" / "shapes"
