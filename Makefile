# The two commands of the README are `make quickstart` and `make test`; both set up everything they need.
# PYTHON=python3.12 chooses the interpreter; each Python version has its own environment in .venv/.

PYTHON ?= python3

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(PYTHON_VERSION),)
$(error $(PYTHON) does not run; set PYTHON to a Python of at least 3.11)
endif
ifneq ($(filter 2.% 3.0 3.1 3.2 3.3 3.4 3.5 3.6 3.7 3.8 3.9 3.10,$(PYTHON_VERSION)),)
$(error $(PYTHON) is Python $(PYTHON_VERSION); set PYTHON to a Python of at least 3.11)
endif

VENV := .venv/$(PYTHON_VERSION)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Versions newer than the pinned ones start from the newest pins.
CONSTRAINTS := $(or $(wildcard constraints/py$(subst .,,$(PYTHON_VERSION)).txt),constraints/py312.txt)

SHELL_SCRIPTS := .ci/run $(wildcard launch/*.sbatch launch/container/*.sh tests/*/*.sh)
DOCKERFILES := $(wildcard Dockerfile launch/Dockerfile)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup quickstart test fault-campaign test-cluster test-image test-rehearsal export-readers lint audit types format clean

help:
	@echo "make quickstart   train a small model on real text, from download to exported model (runs/quickstart/)"
	@echo "make test         lint, types, shell lint and the test suite"
	@echo "make fault-campaign  kills runs at 200 places, flips bits and spoils files, for hours (docs/reliability.md); goes on where it was"
	@echo "make export-readers   read an export with the oldest and newest supported transformers (installs them)"
	@echo "make test-cluster runs on a SLURM cluster of three hosts made on this machine (root, Debian packages)"
	@echo "make test-image   builds the training image in both formats on a small base (root, Debian packages); FULL=1: trains in it"
	@echo "make test-rehearsal  rehearses the published runs at their size against the plan (minutes each)"
	@echo "make lint         ruff, mypy, import-linter, shellcheck, hadolint"
	@echo "make audit        bandit, a search for secrets, known vulnerabilities of the pinned versions (where there is a network)"
	@echo "make format       rewrite the sources in the project's format"
	@echo "make setup        only create the environment $(VENV)"
	@echo "make clean        remove environments, caches and builds; runs/ stays"

setup: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml $(CONSTRAINTS)
	@echo 'Creating $(VENV) and installing the pinned versions; this takes a few minutes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --constraint $(CONSTRAINTS) pip setuptools
	$(BIN)/python -m pip install -qq --constraint $(CONSTRAINTS) --no-build-isolation --editable '.[data,hf,dev]'
	touch $@

quickstart: setup
	$(BIN)/salamandra quickstart $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

fault-campaign: setup
	PYTHONPATH=tests/campaign:tests/support $(BIN)/python -W ignore -m fault_campaign $(ARGS)
	SALAMANDRA_FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest tests/hostile/test_malformed_files.py tests/data_prep/test_fuzzed_files.py

# Each version into a directory of its own, beside the environment's other packages.
READERS := .venv/export-readers
export-readers: setup
	grep -v '^#' tests/hf/reader_versions.txt | while read -r transformers tokenizers hub; do \
	    target=$(READERS)/$$transformers-$$tokenizers; \
	    [ -d $$target ] || $(BIN)/python -m pip install -qq --no-deps --target $$target "transformers==$$transformers" \
	        "tokenizers==$$tokenizers" "huggingface_hub==$$hub" || exit 1; \
	done
	SALAMANDRA_EXPORT_READERS="$$(echo $(abspath $(READERS))/*)" $(BIN)/python -m pytest tests/hf/test_export_readers.py

# Needs root: a host is a set of namespaces. Where that, or SLURM itself, cannot be had, it says so and is no failure;
# tests that fail are one. The tests skip by themselves what the kernel does not allow (namespaces, cgroup v1).
APT := timeout 300 apt-get -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=60
# Laboratories mostly wait, so several run side by side, each with tests of its own.
CLUSTER_TESTS = $(BIN)/python -m pytest -n 5 --dist worksteal -m cluster tests/cluster
test-cluster: setup
	@there() { for program in slurmctld slurmd munged ip; do command -v $$program >/dev/null || return 1; done; }; \
	if [ "$$(id -u)" != 0 ]; then echo "SKIPPED: test-cluster needs root"; \
	elif ! there && ! command -v apt-get >/dev/null; then \
	  echo "SKIPPED: test-cluster needs SLURM's programs, and there is no apt-get to install them"; \
	elif ! there && ! { $(APT) update && DEBIAN_FRONTEND=noninteractive $(APT) install -y --no-install-recommends \
	  slurmctld slurmd slurm-client munge iproute2 >/dev/null; }; then \
	  echo "SKIPPED: test-cluster needs SLURM's programs, and apt-get cannot install them here (no network?)"; \
	else $(CLUSTER_TESTS) $(ARGS); fi

# Needs root: a build without a container engine's daemon mounts and changes roots.
test-image: setup
	@if [ "$$(id -u)" != 0 ]; then echo "SKIPPED: test-image needs root"; \
	elif ! { command -v buildah && command -v debootstrap; } >/dev/null && ! { apt-get update -qq && apt-get install -y -qq \
	  --no-install-recommends buildah debootstrap >/dev/null; }; then echo "SKIPPED: buildah cannot be installed here"; \
	else SALAMANDRA_FULL_IMAGE=$(FULL) $(BIN)/python -m pytest -m image tests/image $(ARGS); fi

test-rehearsal: setup
	$(BIN)/python -m pytest -m rehearsal tests/rehearsal $(ARGS)

lint: setup types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck --external-sources $(SHELL_SCRIPTS)
	$(if $(DOCKERFILES),$(BIN)/hadolint $(DOCKERFILES))

# What is found and is none has its reason beside it: in pyproject.toml, after "nosec", or where a line says so. Long
# hexadecimal strings are not looked for, here they are checksums, nor names and passwords in URLs, which tests need.
# Vulnerabilities of others' packages are told and are no failure: no change here made them. Without a network their list
# cannot be had.
PACKAGES := megatron_salamandra kernels/salamandra_kernels data_prep/salamandra_data
audit: setup
	$(BIN)/bandit -q -c pyproject.toml -r $(PACKAGES) launch benchmarks
	git ls-files -z -- . ':!docs/figures' ':!*/results/*' | xargs -0 \
	  $(BIN)/detect-secrets-hook --disable-plugin HexHighEntropyString --disable-plugin BasicAuthDetector
	@found=$$(timeout 300 $(BIN)/pip-audit --vulnerability-service osv --timeout 20 --progress-spinner off \
	  --no-deps --disable-pip --requirement $(CONSTRAINTS) 2>&1); code=$$?; \
	if [ $$code = 0 ]; then echo "no known vulnerability in $(CONSTRAINTS)"; \
	elif echo "$$found" | grep -qE 'ConnectionError|Max retries|timed out' || [ $$code = 124 ]; then \
	  echo "SKIPPED: known vulnerabilities of $(CONSTRAINTS): the database osv.dev cannot be reached from here"; \
	else echo "$$found"; echo "NOTE: known vulnerabilities in $(CONSTRAINTS): see above"; fi

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
