# Two commands on a fresh machine (python3 >= 3.11 with venv, and make):
#
#   make vote    sets up .venv and runs the embedded example: real WASM agents, a real model
#   make test    sets up .venv and passes the tests
#
# PYTHON=python3.12 chooses another interpreter, VENV=path another environment. Tests run two at a
# time, file by file; JOBS=0 runs one after the other.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VOTE := examples/vote
JOBS ?= 2

.PHONY: vote verify test nightly lint types wheel compiled check guests bench clean

vote: $(VENV)/.run
	$(BIN)/lockstep run $(VOTE)/fleet.toml --input $(VOTE)/questions.jsonl
	@$(BIN)/python $(VOTE)/score.py

verify: $(VENV)/.run
	$(BIN)/lockstep verify "$$(ls -td runs/vote-* | head -n 1)"

test: $(VENV)/.test
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

nightly: $(VENV)/.test
	$(BIN)/pytest -m nightly

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.test
	$(BIN)/mypy

# The wheel, as a user gets it: built, installed alone, and asked to run the example and what
# `lockstep init` makes.
wheel: $(VENV)/.run
	rm -rf build dist
	$(BIN)/python -m pip -q wheel --no-deps -w dist .
	rm -rf $(VENV)-wheel && $(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip -q install dist/*.whl
	cd $(VOTE) && $(abspath $(VENV)-wheel)/bin/lockstep run fleet.toml --run-dir "$$(mktemp -d)/run" \
	    --input questions.jsonl
	cd "$$(mktemp -d)" && lockstep=$(abspath $(VENV)-wheel)/bin/lockstep && $$lockstep init first && \
	    $$lockstep run first/fleet.toml --input first/input.jsonl
	rm -rf $(VENV)-wheel

# The compiled form (docs/install.md), in an environment of its own, asked to run the example, and
# to record it.
compiled: $(VENV)/.run
	rm -rf $(VENV)-compiled && $(PYTHON) -m venv $(VENV)-compiled
	LOCKSTEP_COMPILE=1 $(VENV)-compiled/bin/python -m pip -q install .
	$(VENV)-compiled/bin/lockstep --version | grep compiled
	cd $(VOTE) && $(abspath $(VENV)-compiled)/bin/lockstep run fleet.toml \
	    --run-dir "$$(mktemp -d)/run" --input questions.jsonl

check: lint types test

guests:
	$(MAKE) -C $(VOTE) PYTHON=$(abspath $(BIN))/python
	$(BIN)/python tests/guests/build.py

# Figures of this machine (docs/benchmarks.md). The first time it installs the peers, apart.
bench: $(VENV)/.bench
	$(BIN)/lockstep bench setup
	$(BIN)/lockstep bench all --quick
	$(BIN)/pytest bench/suites --benchmark-enable

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Lockstep needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip -q install --upgrade pip

$(VENV)/.run: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip -q install -e .
	touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip -q install -e '.[test]'
	touch $@ $(VENV)/.run

$(VENV)/.bench: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip -q install -e '.[bench]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) $(VENV)-wheel $(VENV)-compiled build dist *.egg-info
