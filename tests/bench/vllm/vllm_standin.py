"""A package named `vllm` whose API server streams without a model, so that the commands run whole in these tests."""

from __future__ import annotations

from pathlib import Path

STREAMING = Path(__file__).with_name("streaming.py")

API_SERVER = """
import argparse, os, runpy, signal, sys, threading
parser = argparse.ArgumentParser(prog="api_server.py")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--max-num-seqs", type=int)
parser.add_argument("--lora-modules", nargs="*", default=[])
parser.add_argument("--says", default="")
parser.add_argument("--dies-after-s", type=float)
for flag in ("--model", "--served-model-name", "--load-format", "--dtype", "--max-model-len", "--max-num-batched-tokens",
             "--block-size", "--max-loras", "--max-lora-rank", "--max-cpu-loras"):
    parser.add_argument(flag)
for flag in ("--skip-tokenizer-init", "--no-enable-prefix-caching", "--enable-lora", "--enforce-eager"):
    parser.add_argument(flag, action="store_true")
options = parser.parse_args()
for module in options.lora_modules:
    folder = module.partition("=")[2]
    assert os.path.isfile(folder + "/adapter_model.safetensors"), folder
assert os.path.isfile(options.model + "/config.json")
if options.says:
    sys.exit(options.says)
print("(EngineCore pid=1) INFO 11-21 04:39:36 [kv_cache_utils.py:2327] CPU KV cache size: 174,752 tokens", flush=True)
if options.dies_after_s:
    threading.Timer(options.dies_after_s, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
sys.argv = ["streaming.py", str(options.port)]
runpy.run_path({streaming!r}, run_name="__main__")
"""


def write_standin(folder: Path, version: str = "0.32.0") -> Path:
    """Write the package into a folder that goes onto PYTHONPATH."""
    package = folder / "vllm"
    for name in ("", "entrypoints", "entrypoints/openai"):
        (package / name).mkdir(parents=True, exist_ok=True)
        (package / name / "__init__.py").write_text("")
    (package / "entrypoints/openai/api_server.py").write_text(API_SERVER.replace("{streaming!r}", repr(str(STREAMING))))
    about = folder / f"vllm-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return folder
