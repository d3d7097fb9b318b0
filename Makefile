# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A process for each core, up to eight, and one thread in each: threads that share a core wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 15 --durations-min 10

.PHONY: help demo test quick lint types results bench clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/  /'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trueread needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,volumes]'
	touch $@

demo: $(READY)  ## train, audit and report on the built-in phantom cohort; no data needed
	$(BIN)/trueread run studies/quickstart.yaml

test: lint types  ## lint, type check and all tests
	$(PYTEST)

quick: lint types  ## the same without what trains networks or reads whole cohorts; under two minutes
	$(PYTEST) -m 'not slow'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python benchmarks/results_page.py --check

types: $(READY)
	$(BIN)/mypy

results: $(READY)  ## docs/results.md again, from results/*.json
	$(BIN)/python benchmarks/results_page.py

bench: $(READY)  ## the benchmarks, each a ratio in one run; about 15 minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
