# `make help` tells what there is. Everything that a target needs, it installs
# itself into .venv; nothing but Python 3.11+, pip and make is expected.

PYTHON ?= python3
VENV := .venv
PROTOS_VENV := .venv-protos
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
LISTEN ?= 127.0.0.1:7450
OPS_LISTEN ?= 127.0.0.1:7451
DATA_DIR ?= .data

.DEFAULT_GOAL := help
BENCH_VENV := .venv-bench

.PHONY: help serve test check test-system demo bench soak protos lock clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.serve ## Run a server with its own PostgreSQL in .data (LISTEN=, OPS_LISTEN=, DATA_DIR=)
	@LISTEN="$(LISTEN)" OPS_LISTEN="$(OPS_LISTEN)" DATA_DIR="$(DATA_DIR)" scripts/serve.sh "$(BIN)"

test: $(VENV)/.dev ## Run all tests that need no root: unit, integration, end to end, faults
	@scripts/timed.sh "make test" $(BIN)/python -m pytest -m "not system" -n 3 --dist worksteal \
		--cov --cov-report=term:skip-covered $(TESTFLAGS)

check: $(VENV)/.dev $(PROTOS_VENV)/.done ## Lint, types, import rules, protos, manifests
	@scripts/timed.sh "make check" scripts/check.sh "$(BIN)" "$(PROTOS_VENV)/bin"

test-system: $(VENV)/.dev ## Build and run the image for real (installs Debian packages; needs root)
	@scripts/timed.sh "Debian packages" tests/system/install-packages.sh
	@scripts/timed.sh "make test-system" $(BIN)/python -m pytest -m system tests/system $(TESTFLAGS)

soak: $(VENV)/.dev ## Lose no event in 100,000, whatever dies meanwhile: some minutes (SOAKFLAGS="--events 10000", --naive)
	@$(BIN)/python -m tests.soak $(SOAKFLAGS)

demo: $(VENV)/.serve ## Show a session's life in the terminal
	@$(BIN)/python examples/demo.py

bench: $(BENCH_VENV)/.done ## Measure us and other session stores in the same PostgreSQL (BENCHFLAGS=, SESSION_CORPUS=)
	@$(BENCH_VENV)/bin/python -m benchmarks $(BENCHFLAGS)

protos: $(PROTOS_VENV)/.done ## Write the generated stubs anew
	@scripts/protos.sh "$(PROTOS_VENV)/bin" client

lock: $(VENV)/.dev ## Pin dependencies anew (LOCKFLAGS=--upgrade for newer versions)
	@$(BIN)/python $(PIP_INSTALL) uv
	@scripts/lock.sh $(BIN)/uv $(LOCKFLAGS)

clean: ## Remove environments and caches; data in .data stays
	rm -rf $(VENV) $(PROTOS_VENV) $(BENCH_VENV) .build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# pip refuses a local project beside hashes: the pinned dependencies first, then
# the project without dependencies. --no-deps: the files name everything, and where a
# package asks for another's extra, pip would look at releases newer than the pinned one.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@echo "making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/serve.txt pyproject.toml | $(VENV)/bin/python
	@scripts/timed.sh "installing the server" $(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/serve.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@scripts/timed.sh "installing the tools" $(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/dev.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.serve

$(PROTOS_VENV)/.done: requirements/protos.txt
	@$(PYTHON) -m venv $(PROTOS_VENV)
	@$(PROTOS_VENV)/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/protos.txt
	@touch $@

$(BENCH_VENV)/.done: requirements/bench.txt pyproject.toml
	@$(PYTHON) -m venv $(BENCH_VENV)
	@scripts/timed.sh "installing the peers" $(BENCH_VENV)/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/bench.txt
	@$(BENCH_VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
