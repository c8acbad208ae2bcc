# make run: see it work on the sample corpus. make check test: what a change must pass. make bench: speed and memory.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# stamps, so that installing again takes no time until the dependencies change
CORE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# mypy does not follow editable installs into eval/, integrations/ and trainers/, so it reads an installed copy
TYPED := build/typed

.PHONY: install run test check bench clean

install: $(DEV)

run: $(CORE)
	$(BIN)/ctxprune run

test: $(DEV)
	$(BIN)/python -m pytest

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(PIP) --no-deps --no-build-isolation --target $(TYPED) .
	cd $(TYPED) && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p ctxprune

bench: $(DEV)
	$(BIN)/python -m ctxprune.eval.bench

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

# setuptools: for the check above and the test that builds the wheel
$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) setuptools -e '.[dev]'
	touch $(CORE) $@
