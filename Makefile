# make demo   take SmolLM2 apart and look at its features (DEMO_ARGS="--tokens 100000 --features 2304")
# make test   every test
# make check  what CI runs: lint, types, import contracts, the pages' checks, every test

PYTHON ?= python3
BIN := .venv/bin
DEMO_ARGS ?=
DEMO_PORT ?= 8765
JOBS ?= 2
PAGES := $(shell find frontend -path frontend/node_modules -prune -o -type f -print 2>/dev/null)
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: env frontend demo test check static docs clean constraints

env: .venv/ready
frontend: sememe/web/assets/index.html

# torch goes first and alone: its version is fixed, so that nothing else asks for another build.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make env PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

frontend/node_modules/ready: frontend/package-lock.json frontend/package.json frontend/npm.py | env
	$(BIN)/python frontend/npm.py ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

sememe/web/assets/index.html: $(filter-out frontend/npm.py,$(PAGES)) frontend/node_modules/ready
	$(BIN)/python frontend/npm.py run --silent build
	@touch $@

demo: env frontend
	$(BIN)/sememe map smollm2-135m --out runs/demo --serve --port $(DEMO_PORT) $(DEMO_ARGS)

test: env frontend
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations=8

static: env frontend
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python frontend/npm.py run --silent check
	$(BIN)/python frontend/npm.py run --silent test

check: static test

docs: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m docs.tables
	$(BIN)/mkdocs build --quiet --strict

# After a change of dependencies: what a fresh environment of the newest versions holds.
constraints: docs
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f > constraints.txt

clean:
	rm -rf .venv frontend/node_modules sememe/web/assets build dist
