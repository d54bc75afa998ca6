"""What can go wrong with a real server, named in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from twin import UserError


class Kind(Enum):
    """What went wrong."""

    PORT_IN_USE = "port in use"
    UNKNOWN_FLAG = "unknown flag"
    NO_GPU = "no GPU"
    OUT_OF_MEMORY = "out of memory"
    KV_CACHE_TOO_SMALL = "KV cache too small"
    RANK_ABOVE_LIMIT = "adapter rank above the limit"
    NOT_INSTALLED = "vLLM not installed"
    DIED = "server died"
    NOT_READY = "server not ready"
    STALLED = "server stalled"


#: What the twin calls a memory error: the engine does not start with these flags.
MEMORY_ERRORS = frozenset({Kind.OUT_OF_MEMORY, Kind.KV_CACHE_TOO_SMALL})


class ServerError(UserError):
    """A real server failed; the message is one line.

    Attributes
    ----------
    kind : Kind
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def is_memory_error(self) -> bool:
        """Whether it is what the twin calls a memory error."""
        return self.kind in MEMORY_ERRORS


@dataclass(frozen=True)
class _Rule:
    kind: Kind
    pattern: re.Pattern[str]
    says: str


def _rule(kind: Kind, pattern: str, says: str) -> _Rule:
    return _Rule(kind, re.compile(pattern), says)


# The order matters: what comes first is the cause of what comes after. `{0}`, `{1}` are the pattern's groups.
_RULES = (
    _rule(
        Kind.UNKNOWN_FLAG,
        r"error: unrecognized arguments: (.+)",
        "this vLLM version does not know the flag {0}; change engine.arguments",
    ),
    _rule(Kind.UNKNOWN_FLAG, r"api_server\.py: error: (.+)", "vLLM refuses its flags: {0}; change engine.arguments"),
    _rule(Kind.NOT_INSTALLED, r"No module named '?(vllm[\w.]*)", "this Python has no vLLM (no module {0})"),
    _rule(
        Kind.PORT_IN_USE,
        r"(?i)address already in use",
        "the port is in use; engine.port=0 takes a free one",
    ),
    _rule(
        Kind.NO_GPU,
        r"(Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver|no NVIDIA GPU detected"
        r"|CUDA driver initialization failed|libcuda\.so\.1: cannot open)",
        "vLLM finds no GPU ({0}); engine=vllm_cpu serves on the processor",
    ),
    _rule(
        Kind.RANK_ABOVE_LIMIT,
        r"LoRA rank (\d+) is greater than max_lora_rank (\d+)",
        "an adapter's rank {0} is above the server's max_lora_rank={1}",
    ),
    _rule(
        Kind.KV_CACHE_TOO_SMALL,
        r"To serve at least one request with the model.s max seq len \((\d+)\),? \(?([\d.]+ GiB) KV cache is needed, "
        r"which is larger than the available KV cache memory \(([\d.]+ GiB)\)",
        "the KV cache is too small for one request of max_model_len={0}: it takes {1}, there are {2}",
    ),
    _rule(
        Kind.KV_CACHE_TOO_SMALL,
        r"max seq len \((\d+)\) is larger than the maximum number of tokens that can be stored in KV cache \((\d+)\)",
        "the KV cache is too small for one request of max_model_len={0}: it holds {1} tokens",
    ),
    _rule(
        Kind.OUT_OF_MEMORY,
        r"(No available memory for the cache blocks)",
        "out of memory: nothing is left for the KV cache",
    ),
    _rule(
        Kind.OUT_OF_MEMORY,
        r"(CUDA out of memory\. Tried to allocate [\d.]+ \w+|DefaultCPUAllocator: can't allocate memory"
        r"|not enough memory: you tried to allocate \d+ bytes"
        r"|(?:Free|Available) memory on (?:device|node)[^(\n]*\([^)\n]*\))",
        "out of memory: {0}",
    ),
    _rule(Kind.OUT_OF_MEMORY, r"\b(OutOfMemoryError|MemoryError)\b", "out of memory: {0}"),
)

# Lines that say what happened, without vLLM's prefix.
_PREFIX = re.compile(r"^(\(\w+[^)]*\)\s*)?((INFO|WARNING|ERROR|DEBUG|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\]\s*)?")
_TELLING = re.compile(r"(Error|Exception|error|killed|Killed|signal|fatal|abort)")
_CAUSE = re.compile(r"^[\w.]*(Error|Exception): .+")
#: How many of the log's last lines a message holds; by hand.
LAST_LINES = 3


def without_prefix(line: str) -> str:
    """A line of vLLM's log without process name, level, time and place."""
    return _PREFIX.sub("", line).strip()


def last_lines(log: Sequence[str]) -> str:
    """The first exception of a log and its last lines that tell something, on one line.

    vLLM ends with "See root cause above": the process that failed first wrote first.
    """
    lines = [text for line in log if (text := without_prefix(line))]
    telling = [line for line in lines if _TELLING.search(line)]
    chosen = (telling or lines)[-LAST_LINES:]
    cause = next((line for line in lines if _CAUSE.match(line)), None)
    if cause is not None and cause not in chosen:
        chosen = [cause, *chosen[1:]]
    return " | ".join(line[:200] for line in chosen) or "(empty)"


def explain_log(log: Sequence[str], returncode: int | None) -> ServerError:
    """The error that a dead server's log tells of.

    Parameters
    ----------
    log : sequence of str
        Lines.
    returncode : int, optional
        Exit code of the server; negative for a signal.
    """
    text = "\n".join(log)
    found = [(match.start(), rule, match) for rule in _RULES if (match := rule.pattern.search(text))]
    if found:
        _, rule, match = min(found, key=lambda item: _RULES.index(item[1]))
        return ServerError(rule.kind, rule.says.format(*(match.groups() or (match.group(0),))))
    how = "exit code unknown" if returncode is None else f"exit code {returncode}"
    if returncode is not None and returncode < 0:
        how = f"killed by signal {-returncode}"
    return ServerError(Kind.DIED, f"the server died ({how}); the last lines of its log: {last_lines(log)}")
