# Everything runs in .venv, which a target sets up when pyproject.toml or constraints.txt changed, and only then.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# A toy model gains nothing from more than four threads. Threads that spin while they wait make steps ten times
# slower as soon as two processes share the cores: they sleep instead.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
THREADS ?= $(shell [ $(CORES) -lt 4 ] && echo $(CORES) || echo 4)
export OMP_NUM_THREADS = $(THREADS)
export OMP_WAIT_POLICY = PASSIVE

# Frames are buffers of megabytes: reused from the heap, not mapped and faulted in again for every read.
export MALLOC_MMAP_THRESHOLD_ = 1073741824
export MALLOC_TRIM_THRESHOLD_ = 1073741824

.DEFAULT_GOAL := help
.PHONY: help storm demo reproduce test lint bench toyworld-weights clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP)  ## the whole line on the embedded toy world, a few minutes: demo/summary.json, demo/demo.png
	$(BIN)/python -m toyworld.demo --out demo

reproduce: $(STAMP)  ## the papers' claims measured, at most 40 minutes on 2 cores, resumable; writes docs/results.md
	$(BIN)/python -m toyworld.reproduce --out results

test: export OMP_NUM_THREADS = 1
test: $(STAMP)  ## all tests, on two processes, at most 15 minutes
	$(BIN)/python -m pytest -n 2 --session-timeout=900

storm: $(STAMP)  ## every fault 30 times, and docs/reliability.md; an hour or more on 2 cores
	$(BIN)/python -m tests.faults.storm --times 30

lint: $(STAMP)  ## ruff (rules and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## all benchmarks; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.run

toyworld-weights: $(STAMP)  ## rebuild the toy world's two models from scratch, at most 40 minutes on 2 cores
	$(BIN)/python -m toyworld.build

clean:  ## remove what demo, build and caches left (never .venv, never a store)
	rm -rf demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "error: no $(PYTHON) on the PATH; install Python 3.11 or newer, or say 'make PYTHON=/path/to/python ...'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); this project needs Python 3.11 or newer: say 'make PYTHON=python3.11 ...'" >&2; exit 1; }
	@echo "Setting up $(VENV): PyTorch and the rest, several GB, a few minutes. This happens once."
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: $(PYTHON) cannot make a virtual environment; install its venv module (often a package named python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
