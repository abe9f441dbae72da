# Calibroscope. `make demo` and `make test` need only Python 3.11 or newer and make; they do the rest.

PYTHON ?= python3
VENV   ?= .venv
HOST   ?= 127.0.0.1
PORT   ?= 8050
DEMO   ?=
# Two processes, each with the files of its own; browsers apart, since they leave an event loop running.
PYTEST ?= -n 2 --dist loadfile

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools

.PHONY: demo test lint format bench gpu-check setup tools browser clean help

help:
	@echo "make demo    analyse the packaged model and open the dashboard (HOST=$(HOST) PORT=$(PORT))"
	@echo "make test    lint, types and all tests"
	@echo "make lint    ruff, oxlint and mypy  make format  ruff format"
	@echo "make gpu-check  whether all is well on this machine's GPU, with a log to paste"
	@echo "make setup   the virtual environment in $(VENV)"

demo: setup
	$(BIN)/calibroscope demo --host $(HOST) --port $(PORT) $(DEMO)

test: tools browser lint
	$(BIN)/python -m pytest $(PYTEST) -m "not browser"
	$(BIN)/python -m pytest $(PYTEST) -m browser

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint static
	$(BIN)/mypy

format: tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: tools
	OMP_WAIT_POLICY=PASSIVE THP_MEM_ALLOC_ENABLE=1 $(BIN)/python -m tests.benchmarks

# On a machine with an NVIDIA card: looks at it, runs the tests that need one, measures, and keeps gpu-check.log to paste.
gpu-check: tools
	$(BIN)/python -m tests.benchmarks.gpu

setup: $(STAMP)

tools: $(TOOLS)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Calibroscope needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Could not make $(VENV): on Debian and Ubuntu, apt-get install python3-venv first."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $(STAMP)

# Triton is among them only for its interpreter: on a machine with CUDA, torch brings it.
$(TOOLS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cuda]'
	@touch $(TOOLS)

# The browser tests need a Chromium: named by CHROMIUM, on PATH, or installed here where that is possible.
browser:
	@sh tests/browser/install_chromium.sh

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
