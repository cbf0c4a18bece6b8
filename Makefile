# Every target sets up what it needs: a virtual environment in .venv, and the package in it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STEPS ?= 950
DEMO_OUT ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-gpu lint format bench weights notebooks docs exercise clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.run: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "this needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments (on Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@

demo: $(VENV)/.run ## train on toy shapes, then show AP and a picture (under 5 minutes on 2 cores)
	@rm -rf $(DEMO_OUT)
	$(BIN)/mrcnn-scratch train --out $(DEMO_OUT) --steps $(DEMO_STEPS) --images 0

test: $(VENV)/.dev ## the unit tests
	$(BIN)/python -m pytest -m 'not slow and not gpu and not site' -n 2

test-all: $(VENV)/.dev ## the unit tests and the slow ones
	$(BIN)/python -m pytest -m 'not gpu and not site' -n 2

test-gpu: $(VENV)/.dev ## on a GPU: every test of the arrays with the real CuPy, a short training, timings
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/gpu.py

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

exercise: $(VENV)/.dev ## judge a function that you have written: make exercise NAME=nms
	@$(BIN)/python exercises/judge.py $(NAME)

bench: $(VENV)/.run ## time every operation and a whole step, beside PyTorch where it is installed
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python benchmarks/bench.py

weights: $(VENV)/.run ## train the network that comes with the package (about half an hour)
	$(BIN)/python benchmarks/train_weights.py

notebooks: $(VENV)/.docs ## run every notebook from top to bottom; an error or a warning fails
	$(BIN)/python docs/execute.py --force

docs: $(VENV)/.docs ## build the site in build/html, and look at every page in a browser without a screen
	$(BIN)/python docs/execute.py
	$(BIN)/python docs/build_site.py
	$(BIN)/python -m pytest -m site -q tests/test_notebooks.py tests/test_site.py

clean: ## remove the virtual environment, caches and runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist runs src/*.egg-info
