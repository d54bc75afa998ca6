"""Times of engine steps without adapters, from measured kernel tables (package `aiconfigurator-core`, Apache-2.0)."""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.estimating.gpus import MEASURED_CARD, Gpu
from bench.estimating.shape import ModelShape
from twin import UserError

#: The package whose tables are asked; the extra `profiles` installs it.
PACKAGE = "aiconfigurator_core"
#: `dtype` of a profile as the tables name it, and bytes of a weight.
DTYPES = {"bf16": ("bfloat16", 2.0), "fp8": ("fp8", 1.0)}
#: Time in ms of a step with so many prefill tokens and decoding requests, each with so many tokens in its context.
StepTime = Callable[[int, int, int], float]


def kernel_times(shape: ModelShape, gpu: Gpu, *, tp: int = 1, dtype: str = "bf16") -> tuple[StepTime, str]:
    """A function that gives the time of a step, and the version of vLLM whose kernels were timed.

    Parameters
    ----------
    shape : ModelShape
    gpu : Gpu
    tp : int
        GPUs that share each layer (tensor parallel size).
    dtype : {"bf16", "fp8"}
        Of the weights; the KV cache has 16 bits.

    Raises
    ------
    UserError
        If the package is not installed, or has no tables for this.
    """
    sdk = _package()
    quantised = {"gemm_quant_mode": DTYPES[dtype][0], "kvcache_quant_mode": "bfloat16", "fmha_quant_mode": "bfloat16"}
    if shape.experts:
        quantised["moe_quant_mode"] = DTYPES[dtype][0]
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(shape.config, encoding="utf-8")
        try:
            tables = sdk("perf_database").get_database(gpu.tables, "vllm", "current")
            parallel = (tp, 1, 1, tp if shape.experts else 1, 1)
            config = sdk("config_builders").build_model_config(*parallel, **quantised)
            model = sdk("models").get_model(folder, config, "vllm")
            backend = sdk("backends.factory").get_backend("vllm")
        except (ValueError, KeyError, AssertionError) as error:
            raise UserError(f"gpu={gpu.name}: the kernel tables cannot say ({_line(error)})") from None
    runtime, mixed = sdk("config").RuntimeConfig, sdk("step_estimate").MixedStepInput
    # What a card of less bandwidth takes for the same work; steps wait for memory, at all but the longest prefills.
    slower = _bandwidth(tables) / gpu.bandwidth if gpu == MEASURED_CARD else 1.0

    def step_ms(prefill: int, decodes: int, context: int) -> float:
        with _quiet():
            try:
                # A mixed step has at least one prefill token.
                step = mixed(max(1, prefill), decodes)
                answer = backend.run_mixed(model, tables, runtime(batch_size=1, isl=context, osl=2), step)
            # What the tables lack is told in many ways, none of which is declared.
            except Exception as error:  # noqa: BLE001
                raise UserError(
                    f"model={shape.name} gpu={gpu.name} tp={tp} dtype={dtype}: the kernel tables cannot say ({_line(error)})"
                ) from None
        return slower * float(answer.latency_ms)

    return step_ms, str(tables.version)


def _package() -> Callable[[str], Any]:
    try:
        importlib.import_module(PACKAGE)
    except ImportError:
        raise UserError(
            "kernel tables are not installed: pip install 'lora-placement-bench[profiles]' (in a clone: make profile-tables)"
        ) from None
    return lambda name: importlib.import_module(f"{PACKAGE}.sdk.{name}")


@contextmanager
def _quiet() -> Iterator[None]:
    """The package logs what it falls back to, line by line; what it cannot say it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _bandwidth(tables: Any) -> float:  # noqa: ANN401  # a class of a package that need not be there
    return float(tables.system_spec["gpu"]["mem_bw"]) / 1e12


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."  # one line of a terminal or two
