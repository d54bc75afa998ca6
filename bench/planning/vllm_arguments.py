"""Further arguments of `vllm serve` beside those that a plan sets."""

from __future__ import annotations

from collections.abc import Sequence

from twin import ServingProfile, UserError

#: What a plan decides itself: the figures hold for its values only.
PLANNED = (
    "--port", "--max-loras", "--max-lora-rank", "--max-cpu-loras", "--enable-lora", "--no-enable-lora", "--lora-modules",
    "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--block-size", "--enable-prefix-caching",
    "--no-enable-prefix-caching", "--model", "--config",
)  # fmt: skip
#: Several GPUs for one server; a plan gives each server one.
_SEVERAL = {
    "--tensor-parallel-size": "-tp",
    "--pipeline-parallel-size": "-pp",
    "--data-parallel-size": "-dp",
    "--decode-context-parallel-size": "-dcp",
}
#: What changes how fast a server is, or what it holds.
_FIGURES = (
    "--quantization", "-q", "--dtype", "--kv-cache-dtype", "--gpu-memory-utilization", "--enforce-eager", "--speculative-config",
    "--cpu-offload-gb", "--swap-space", "--kv-cache-memory-bytes", "--num-gpu-blocks-override", "--enable-chunked-prefill",
    "--no-enable-chunked-prefill", "--async-scheduling", "--no-async-scheduling", "--scheduling-policy", "--compilation-config",
    "--fully-sharded-loras", "--long-prefill-token-threshold", "--max-num-partial-prefills", "--load-format", "--attention-backend",
)  # fmt: skip


def check_arguments(given: Sequence[str]) -> list[str]:
    """Refuse arguments that contradict a plan.

    Parameters
    ----------
    given : sequence of str
        One item for each argument, as a shell would split them.

    Returns
    -------
    list of str
        Notes on those that change the figures.

    Raises
    ------
    UserError
        For flags that a plan sets itself, or several GPUs for a server.
    """
    notes = []
    for place, argument in enumerate(given):
        if not argument.strip():
            raise UserError(f"vllm_args: item {place + 1} is empty; give one item for each argument")
        if not argument.startswith("-") or _is_number(argument):
            continue
        # vLLM takes underscores for hyphens and beginnings of names that say enough.
        name, _, value = argument.partition("=")
        name = name.replace("_", "-")
        meant = [
            flag
            for flag in PLANNED
            if flag == name or (name.startswith("--") and len(name) > 6 and flag.startswith(name))
        ]
        if meant:
            raise UserError(
                f"vllm_args: {argument} is set by the plan ({meant[0]}), whose figures hold for its value only; leave it out"
            )
        for long, short in _SEVERAL.items():
            if name in (long, short) or (name.startswith("--") and len(name) > 6 and long.startswith(name)):
                count = value or (given[place + 1] if place + 1 < len(given) else "")
                if count != "1":
                    raise UserError(
                        f"vllm_args: {argument} asks for {count or 'several'} GPUs for a server; a plan gives each server one, and "
                        "its profile is of one: measure a profile of several and give it as one GPU"
                    )
        if name in _FIGURES:
            notes.append(
                f"vllm_args: {argument} changes what a server holds or how fast it is; the figures are of a server without it"
            )
    return notes


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def profile_arguments(profile: ServingProfile) -> list[str]:
    """Arguments of every server that the profile counts on."""
    return ["--specialize-active-lora"] if profile.provenance.get("specialize_active_lora") else []
