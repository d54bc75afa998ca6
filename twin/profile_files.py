"""Serving profiles as validated, versioned JSON: shipped ones by name, others from files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from importlib import resources
from typing import Any

from twin.errors import UserError
from twin.inputs import parse_json, plain_text, read_text
from twin.numbers import number, shown, whole
from twin.profile import ENGINES, SCHEMA_VERSION, SLORA, STEP_TERMS, KvCapacity, ServingProfile, Uncertainty

_WHAT = "a serving profile (JSON; docs/twin.md)"
_NEEDED = (
    "name", "model", "gpu", "engine", "engine_version", "kv", "step_ms", "scheduler_ms", "load_ms", "disk_load_ms",
)  # fmt: skip
_UNCERTAIN = tuple(Uncertainty.__dataclass_fields__)
#: No standard deviation is larger: a step that takes twenty times as long would be one of them.
_MOST_SPREAD = 3.0
_KV = tuple(KvCapacity.__dataclass_fields__)
#: No time of a profile is longer, in ms: a quarter of an hour.
_LONGEST_MS = 1e6
#: No step of a request is shorter, in ms: a simulated second would take a million of them.
_SHORTEST_STEP_MS = 1e-3
#: No server has a KV cache of more tokens, a longer context, or more slots and sequences.
_MOST_TOKENS, _MOST_CONTEXT, _MOST_SLOTS, _MOST_RANK = 10**10, 10**8, 10**5, 2**16
#: vLLM's blocks have 16 tokens; those of hybrid models some hundred or thousand.
_LARGEST_BLOCK = 2**14
#: GPUs of one server.
_MOST_PARALLEL = 64
_WHOLE = {
    # Smallest and largest value.
    "block_size": (1, _LARGEST_BLOCK),
    "max_num_seqs": (1, _MOST_SLOTS),
    "max_num_batched_tokens": (1, _MOST_CONTEXT),
    "max_model_len": (1, _MOST_CONTEXT),
    "eager_above_tokens": (0, _MOST_CONTEXT),
    "watermark_blocks": (0, _MOST_TOKENS),
    "long_prefill_token_threshold": (0, _MOST_CONTEXT),
    "tensor_parallel_size": (1, _MOST_PARALLEL),
}
#: From here on vLLM's V1 scheduler is the default.
_FIRST_V1 = (0, 8)
#: Servers that runs were published of and that the twin has no loop for.
_REFUSED = {
    name: (
        f"profile={name}: the published runs of this model on vLLM are of 0.5.0, whose V0 engine the twin does not have; "
        "llama-2-7b/slora-h100-64gb is the model on S-LoRA"
    )
    for name in ("llama-2-7b", "llama-2-7b/h100-64gb")
}
_TRUTH = ("reserve_full_prompt", "async_scheduling", "prefix_caching", "count_running_adapters")


def parse_profile(text: str, origin: str) -> ServingProfile:
    """A profile from JSON text, validated.

    Parameters
    ----------
    text : str
    origin : str
        File name for messages.

    Raises
    ------
    UserError
        Naming the file, the key and what would be right.
    """
    data = parse_json(text, origin, _WHAT)
    if not isinstance(data, dict):
        raise UserError(f"{origin}: a serving profile is a JSON object")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{origin}: schema_version={shown(data.get('schema_version'))} is not {SCHEMA_VERSION}, "
            "the version this release reads"
        )
    try:
        _check_keys("", data, ServingProfile.__dataclass_fields__, _NEEDED)
        _check_shapes(data)
        return _build(data)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{origin}: a value has the wrong shape or type ({error})") from None


def _check_keys(inside: str, data: dict[str, Any], known: Iterable[str], needed: Iterable[str]) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        listed = ", ".join(f"{inside}{key}" for key in unknown[:6])
        raise UserError(f"{shown(listed)[1:-1]}: no such key; known are {', '.join(known)}")
    for key in needed:
        if key not in data:
            raise UserError(f"{inside}{key}: is missing; needed are {', '.join(needed)}")


def _check_shapes(data: dict[str, Any]) -> None:
    """Objects and lists where they are needed; what stands in them is checked when the profile is built."""
    for key in ("kv", "step_ms"):
        if not isinstance(data[key], dict):
            raise UserError(f"{key}={shown(data[key])} must be an object")
    _check_keys("kv.", data["kv"], _KV, _KV)
    for key, length, what in (
        ("scheduler_ms", None, "4 numbers of milliseconds"),
        ("load_ms", 3, "[slots, rank, milliseconds]"),
        ("disk_load_ms", 2, "[rank, milliseconds]"),
    ):
        rows = data[key]
        if not isinstance(rows, list) or (length is None and len(rows) != 4):
            raise UserError(f"{key}={shown(rows)} must be a list of {what}")
        wrong = [row for row in rows if length is not None and not (isinstance(row, list) and len(row) == length)]
        if wrong:
            raise UserError(f"{key}: {shown(wrong[0])} must be {what}")
    for key in ("max_loras", "max_lora_rank", "tokens"):
        if not isinstance(data["kv"][key], list):
            raise UserError(f"kv.{key}={shown(data['kv'][key])} must be a list")
    if not all(isinstance(row, list) for row in data["kv"]["tokens"]):
        raise UserError("kv.tokens: each of its rows must be a list of tokens")


def _build(data: dict[str, Any]) -> ServingProfile:
    data = dict(data)
    kv = _capacity(data.pop("kv"))
    step_ms = _steps(data.pop("step_ms"))
    constant, running, skipped, waiting = (
        _time_ms(f"scheduler_ms[{place}]", value) for place, value in enumerate(data.pop("scheduler_ms"))
    )
    uncertainty = _uncertainty(data.pop("uncertainty", None))
    loads = data.pop("load_ms")
    disk = data.pop("disk_load_ms")
    profile = ServingProfile(
        kv=kv,
        step_ms=step_ms,
        uncertainty=uncertainty,
        scheduler_ms=(constant, running, skipped, waiting),
        load_ms=tuple(
            (_rank("load_ms", s), _rank("load_ms", r), _time_ms(f"load_ms[{s}, {r}]", ms)) for s, r, ms in loads
        ),
        disk_load_ms=tuple((_rank("disk_load_ms", r), _time_ms(f"disk_load_ms[{r}]", ms)) for r, ms in disk),
        **data,
    )
    _check_values(profile)
    _check_loads(profile)
    return profile


def _capacity(kv: dict[str, Any]) -> KvCapacity:
    columns = tuple(
        whole("kv.max_loras", value, at_least=-_MOST_SLOTS, at_most=_MOST_SLOTS) for value in kv["max_loras"]
    )
    ranks = tuple(
        whole("kv.max_lora_rank", value, at_least=-_MOST_RANK, at_most=_MOST_RANK) for value in kv["max_lora_rank"]
    )
    if len(kv["tokens"]) != len(ranks) or any(len(row) != len(columns) for row in kv["tokens"]):
        raise UserError("kv.tokens: one row per max_lora_rank and one column per max_loras is needed")
    for key, values in (("max_loras", columns), ("max_lora_rank", ranks)):
        if not values or list(values) != sorted(set(values)) or values[0] < 1:
            raise UserError(f"kv.{key}={list(values)} must be positive and strictly ascending")
    if any(isinstance(value, (int, float)) and value < 0 for row in kv["tokens"] for value in row):
        raise UserError("kv.tokens must not be negative (0 means: does not start)")
    tokens = tuple(
        tuple(whole("kv.tokens", value, at_least=0, at_most=_MOST_TOKENS, unit="tokens") for value in row)
        for row in kv["tokens"]
    )
    without = whole("kv.without_lora_tokens", kv["without_lora_tokens"], at_most=_MOST_TOKENS, unit="tokens")
    return KvCapacity(columns, ranks, tokens, without)


def _steps(steps: dict[str, Any]) -> tuple[float, ...]:
    unknown = sorted(set(steps) - set(STEP_TERMS))
    if unknown:
        raise UserError(f"step_ms: unknown terms {shown(unknown)}; known are {', '.join(STEP_TERMS)}")
    if not steps:
        raise UserError(f"step_ms={{}} must have at least one of the terms {', '.join(STEP_TERMS)}")
    return tuple(_time_ms(f"step_ms.{term}", steps.get(term, 0.0)) for term in STEP_TERMS)


def _uncertainty(data: object) -> Uncertainty | None:
    if data is None:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("terms", {}), dict):
        raise UserError(f"uncertainty={shown(data)} must be an object, and its terms one too")
    _check_keys("uncertainty.", data, _UNCERTAIN, _UNCERTAIN)
    unknown = sorted(set(data["terms"]) - set(STEP_TERMS))
    if unknown:
        raise UserError(f"uncertainty.terms: unknown terms {shown(unknown)}; known are {', '.join(STEP_TERMS)}")
    plain_text("uncertainty.source", data["source"])

    def spread(key: str, value: object) -> float:
        return number(f"uncertainty.{key}", value, at_least=0.0, at_most=_MOST_SPREAD)

    return Uncertainty(
        all_steps=spread("all_steps", data["all_steps"]),
        terms=tuple(spread(f"terms.{term}", data["terms"].get(term, 0.0)) for term in STEP_TERMS),
        kv_cache=spread("kv_cache", data["kv_cache"]),
        step_time=spread("step_time", data["step_time"]),
        source=data["source"],
    )


def _time_ms(key: str, value: object) -> float:
    return number(key, value, at_least=0.0, at_most=_LONGEST_MS, unit="milliseconds")


def _rank(key: str, value: object) -> int:
    return whole(f"{key}: rank", value, at_least=1, at_most=_MOST_RANK)


def _check_values(profile: ServingProfile) -> None:
    for key in ("name", "model", "gpu", "engine", "engine_version"):
        plain_text(key, getattr(profile, key))
    _check_engine(profile)
    for key, (least, most) in _WHOLE.items():
        whole(key, getattr(profile, key), at_least=least, at_most=most)
    for key in _TRUTH:
        if not isinstance(getattr(profile, key), bool):
            raise UserError(f"{key}={shown(getattr(profile, key))} must be true or false")
    if not isinstance(profile.provenance, dict):
        raise UserError(f"provenance={shown(profile.provenance)} must be an object")
    if profile.max_num_batched_tokens < profile.max_num_seqs:
        raise UserError(
            f"max_num_batched_tokens={profile.max_num_batched_tokens} must be at least "
            f"max_num_seqs={profile.max_num_seqs}, as in vLLM"
        )
    _time_ms("min_step_ms", profile.min_step_ms)
    _time_ms("request_overhead_ms", profile.request_overhead_ms)
    number("generated_fraction", profile.generated_fraction, above=0.0, at_most=1.0)
    # A decoding request alone, without LoRA: the shortest step that there is.
    alone = sum(profile.step_ms[STEP_TERMS.index(term)] for term in ("constant", "running", "tokens"))
    if max(alone, profile.min_step_ms) < _SHORTEST_STEP_MS:
        raise UserError(
            f"step_ms: the step of one request takes {alone:g} ms and min_step_ms={profile.min_step_ms:g}; one of them "
            f"must be {_SHORTEST_STEP_MS:g} ms or more"
        )


def _check_engine(profile: ServingProfile) -> None:
    """Refuse engines whose loop the twin does not have."""
    if profile.engine not in ENGINES:
        raise UserError(f"engine={shown(profile.engine)}: the twin has no such loop; it has {', '.join(ENGINES)}")
    numbers = re.match(r"v?(\d+)\.(\d+)", profile.engine_version)
    if profile.engine != SLORA and numbers is not None and (int(numbers[1]), int(numbers[2])) < _FIRST_V1:
        raise UserError(
            f"engine_version={profile.engine_version}: vLLM before {_FIRST_V1[0]}.{_FIRST_V1[1]} schedules by its V0 engine, which the "
            "twin does not have; a profile of a later version would be right"
        )


def _check_loads(profile: ServingProfile) -> None:
    timed = [(server, own) for server, own, _ in profile.load_ms]
    absent = sorted({(s, r) for s in profile.ranks for r in profile.ranks if r <= s} - set(timed))
    if absent:
        raise UserError(f"load_ms: (max_lora_rank, rank) pairs {absent} are missing")
    ranks = [rank for rank, _ in profile.disk_load_ms]
    if set(profile.ranks) - set(ranks):
        raise UserError(f"disk_load_ms: a value for each of the ranks {list(profile.ranks)} is needed")
    for key, found in (("load_ms", timed), ("disk_load_ms", ranks)):
        if len(set(found)) < len(found):
            raise UserError(f"{key}: a rank is there twice; one time for each is right")


def shipped_profiles() -> list[str]:
    """Names of the measured profiles in the package, such as `llama-3.1-8b/h100-64gb`."""
    return _names(_folder())


def estimated_profiles() -> list[str]:
    """Names of the profiles in the package that nobody measured (`python -m bench.profile`), such as `mistral-7b/a100-80gb`."""
    return _names(_folder("estimated"))


def slora_profiles() -> list[str]:
    """Names of the measured profiles of S-LoRA; no command takes one by itself."""
    return _names(_folder(SLORA))


def _folder(kind: str = "") -> Any:  # noqa: ANN401  # importlib's Traversable has no public name in Python 3.11
    folder = resources.files("twin") / "profiles"
    return folder / kind if kind else folder


def _names(folder: Any) -> list[str]:  # noqa: ANN401
    return sorted(
        entry.name.removesuffix(".json").replace("__", "/")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    )


def _full_name(name: str, names: list[str]) -> str | None:
    """The shipped profile that is meant: model/GPU, GPU/model, or a model that has one profile only."""
    swapped = "/".join(reversed(name.split("/")))
    of_model = [known for known in names if known.split("/")[0] == name]
    for meant in (name, swapped, f"{name}/h100-64gb", *(of_model if len(of_model) == 1 else [])):
        if meant in names:
            return meant
    return None


def load_profile(name_or_path: str) -> ServingProfile:
    """A shipped profile by name, or one from a JSON file.

    Raises
    ------
    UserError
        If there is no such profile or file, or it is not valid.
    """
    if name_or_path.endswith(".json"):
        return parse_profile(read_text(name_or_path, _WHAT, key="profile"), name_or_path)
    if name_or_path in _REFUSED:
        raise UserError(_REFUSED[name_or_path])
    for kind, names in (("", shipped_profiles()), (SLORA, slora_profiles()), ("estimated", estimated_profiles())):
        full = _full_name(name_or_path, names)
        if full is not None:
            file_name = full.replace("/", "__") + ".json"
            return parse_profile((_folder(kind) / file_name).read_text(encoding="utf-8"), file_name)
    raise UserError(_no_profile(name_or_path))


def _no_profile(name: str) -> str:
    guessed = estimated_profiles()
    parts = name.lower().split("/")
    near = [known for known in guessed if known.split("/")[0] in parts] or difflib.get_close_matches(
        name.lower(), guessed, 3
    )
    there = (
        f"near are {', '.join(near)} (estimated)"
        if near
        else f"{len(guessed)} estimated ones are in twin/profiles/estimated"
    )
    return (
        f"profile={name}: no such serving profile; measured are {', '.join([*shipped_profiles(), *slora_profiles()])}, {there}; "
        "python -m bench.profile estimates others, or give the path of a .json file"
    )
