# Every verb makes the environment it needs: `make demo` and `make test` work on a fresh clone.
# Needed beforehand: make, Python 3.11 or newer, and its venv module (Debian: python3-venv).
#
#   make demo [TREE=dir]    the main job: index a source tree while a worker is killed
#   make test [ARGS=...]    every test
#   make faults [RUNS=10]   every row of the failure table, every kind of fault, so many times (1 h)
#   make check              what a change must pass: lint, types, core tests, 200 seeds (< 1 minute)
#   make bench [ARGS=...]   freehold beside its peers, one table
#   make sim SEED=n [FLEET=1 [FAULT=kind]]   replay one simulated run, of one node or of several
#   make sim-long           2,000 runs of each, 200 of each fault, the small world with more deaths
#   make fmt                format and apply safe fixes; make docs       generate docs/protocol.md
#   make clean              remove the environment and every cache

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo test faults check bench sim sim-long fmt docs clean

VENV := .venv
PY := $(VENV)/bin/python
SEED ?= 1
FLEET ?=
FAULT ?=
TREE ?=
ARGS ?=
RUNS ?= 10
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The first of these that is 3.11 or newer; name another with `make PYTHON=...`.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	"$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$p"; break; }; done)

help:
	@sed -n '/^# *make /s/^# *//p' Makefile

# --- the environment: one stamp per step, so that each is done once -------------------------------

$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then \
		echo "freehold needs Python 3.11 or newer, and found none on PATH." >&2; \
		echo "On Debian or Ubuntu: sudo apt install python3 python3-venv" >&2; \
		echo "Or name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
		$(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -c 'import venv, pip' 2>/dev/null; then \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(PY) install --quiet pip; \
	else \
		echo "This Python cannot make a virtual environment: its venv module is incomplete." >&2; \
		echo "On Debian or Ubuntu: sudo apt install python3-venv" >&2; \
		echo "then run 'make $(MAKECMDGOALS)' again." >&2; exit 1; fi
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "installing freehold"
	@$(PY) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "installing freehold and what its tests need"
	@$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.run

# --- verbs ----------------------------------------------------------------------------------------

demo: $(VENV)/.run
	$(PY) -m freehold.ext.demo $(TREE)

test: $(VENV)/.dev
	$(PY) -m pytest $(ARGS)

faults: $(VENV)/.dev
	FREEHOLD_FAULT_RUNS=$(RUNS) $(PY) -m pytest -q -rA -s tests/cluster/test_faults.py $(ARGS)

CHECKED := tests/test_tidy.py tests/core tests/wire tests/scenarios tests/test_budget.py
check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q $(CHECKED)
	$(PY) -m freehold.sim --seeds 200
	$(PY) -m freehold.sim --fleet --start 50 --seeds 50

bench: $(VENV)/.dev
	$(VENV)/bin/freehold bench $(ARGS)

sim: $(VENV)/.dev
	$(PY) -m freehold.sim --seed $(SEED) $(if $(FLEET)$(FAULT),--fleet) $(if $(FAULT),--fault $(FAULT))

sim-long: $(VENV)/.dev
	$(PY) -m freehold.sim --seeds 2000
	$(PY) -m freehold.sim --fleet --seeds 2000
	for kind in $$($(PY) -m freehold.sim --faults); do \
		echo "-- $$kind"; $(PY) -m freehold.sim --fleet --fault $$kind --seeds 200; done
	$(PY) -m freehold.sim --small --deep

fmt: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.dev
	$(PY) tools/protocol_docs.py docs/protocol.md
	$(PY) tools/readme_bench.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
