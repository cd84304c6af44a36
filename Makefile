# Every target does its own set-up: `setup` makes .venv and is a no-op when nothing changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup install-locked install-beside lock quickstart test pytest coverage fuzz test-long test-tasks test-learning lint clean

setup: $(STAMP)

# All but torch by hashes, half of it and torch beside the rest; then what torch's build for CUDA needs, and nothing else.
PIP := $(BIN)/pip --quiet --disable-pip-version-check
$(STAMP): pyproject.toml constraints.txt locks/build.txt locks/setup.txt locks/beside.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Clowder needs Python 3.11 (dm-reverb 0.14.0 has no later wheel); call: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps -r locks/build.txt
	$(MAKE) --no-print-directory --jobs 2 install-locked install-beside
	$(PIP) install -c constraints.txt torch
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PIP) check
	touch $(STAMP)

# Parts of setup, which an interrupt ends together.
install-locked:
	$(PIP) install --require-hashes --no-deps --no-build-isolation -r locks/setup.txt

install-beside:
	$(PIP) install --no-deps -c constraints.txt torch
	$(PIP) install --require-hashes --no-deps -r locks/beside.txt

# After a change of constraints.txt or of dependencies; asks the package index.
lock:
	$(PYTHON) .ci/lock.py

quickstart: setup
	$(BIN)/clowder train experiment=quickstart

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Beside lint; two at once: those that start Ray one after another, and beside them the others.
test: setup
	$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: setup
	$(BIN)/python -m pytest -m "not learning and not tasks and not long" -n 2 --dist loadgroup --no-loadscope-reorder

# The same tests, traced; .ci/run's limit is too short for them.
coverage: setup
	$(BIN)/python -m pytest -m "not learning and not tasks and not long" --cov --cov-report=term

# The properties of tests/faults/fuzz with many cases, 100,000 for each of four targets: half an hour on one core.
FUZZ_CASES ?= 100000
fuzz: setup
	CLOWDER_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest tests/faults/fuzz -s --timeout 7200 --hypothesis-show-statistics

# Whole runs that lose processes, machines and Ray itself, a cluster of somebody else's, and whole games.
test-long: setup
	$(BIN)/python -m pytest -m long

# Every task of the catalogue through adapter, writer, replay, sampler and tokenizer: 2 to 10 minutes on one core.
test-tasks: setup
	$(BIN)/python -m pytest -m tasks --timeout 600

# Trains until something is learned: a quarter of an hour or more on two cores.
test-learning: setup
	$(BIN)/python -m pytest -m learning --timeout 3600 -s

clean:
	rm -rf $(VENV)
