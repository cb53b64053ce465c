# Every command works on a fresh machine: it makes the environment first, and does so only once.
#
#   make setup                          the environment, with the CPU build of torch
#   make setup TORCH=cuda               with the CUDA build instead (Linux, NVIDIA); also on an existing environment
#   make setup TORCH_INDEX=URL          with torch from another index, for example one of a CUDA version or a mirror
#   make simulation [ARGS="--help"]     the whole federation on this machine, to its report
#   make test [ARGS="-k wire"]          the fast tests
#   make check                          formatting, style, types, and the direction of imports
#   make lock                           requirements.lock from the environment as it is
#   make clean                          removes the environment and what tools wrote; runs/ stays

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV ?= .venv
TORCH_VERSION := 2.13.0
TORCH_INDEX ?=
# An environment keeps the build it was made with until another is asked for.
TORCH ?= $(if $(TORCH_INDEX),custom,$(patsubst .setup-%,%,$(notdir $(firstword $(wildcard $(VENV)/.setup-*) .setup-cpu))))
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.setup-$(TORCH)

# The CPU build carries a local version on Linux; elsewhere there is no other. Where the configured package index has no
# CPU build, the index's own build is taken: larger, and it runs without a GPU too. '===' keeps 'cuda' from being
# content with a CPU build that is already there.
ifneq ($(TORCH_INDEX),)
TORCH_INSTALL := $(PIP) install --quiet --force-reinstall --index-url $(TORCH_INDEX) torch==$(TORCH_VERSION)
else ifeq ($(TORCH)-$(shell uname -s),cpu-Linux)
TORCH_INSTALL := $(PIP) install --quiet torch==$(TORCH_VERSION)+cpu 2>/dev/null \
  || { echo "no CPU build of torch in the configured package index: taking its default build (larger)"; \
       $(PIP) install --quiet torch==$(TORCH_VERSION); }
else ifeq ($(TORCH),custom)
TORCH_INSTALL := $(PIP) install --quiet torch==$(TORCH_VERSION)
else
TORCH_INSTALL := $(PIP) install --quiet torch===$(TORCH_VERSION)
endif

.PHONY: help setup simulation test check format lock clean

help: ## This list
	@sed -n 's/^#   //p' Makefile

setup: $(STAMP) ## The environment

# torch comes first: whatever depends on it then finds it, and nothing pulls the CUDA build in its place.
$(STAMP): requirements.lock pyproject.toml Makefile
	@if [ ! -x $(BIN)/python ]; then \
	  command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed but '$(PYTHON)' was not found. Install it, or name it: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "'$(PYTHON)' is not Python 3.11, which the locked versions are for. Name one: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu the module is a package of its own: apt-get install python3.11-venv" >&2; exit 1; }; \
	fi
	@rm -f $(filter-out $@,$(wildcard $(VENV)/.setup-*))
	$(TORCH_INSTALL)
	$(PIP) install --quiet --requirement requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

simulation: setup ## The whole federation on this machine
	$(BIN)/python -m simulation.run $(ARGS)

test: setup ## The fast tests
	$(BIN)/python -m pytest $(ARGS)

check: setup ## Formatting, style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Formats all code and sorts its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch and what only its CUDA build needs are left out: the set-up installs torch first, in the wanted build.
lock: ## requirements.lock from the environment as it is
	@{ sed -n '/^#/p' requirements.lock; \
	   $(PIP) freeze --all --exclude-editable \
	   | grep -viE '^(torch|pip|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+|ccfexp-federation)(==| @)'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## Removes the environment and what tools wrote
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
