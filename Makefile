# make run: see it work on the sample corpus. make check test: what a change must pass. make bench: speed and memory.
# make test-all: every test, also those of all frameworks and of the browser, of the built wheel as a user installs it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip install --quiet --disable-pip-version-check -c $(CURDIR)/constraints.txt
PIP := $(BIN)/python $(INSTALL)
# stamps, so that installing again takes no time until the dependencies change
CORE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# a second environment, where the wheel is installed with every extra
ALL := .venv-all
ALL_DEV := $(ALL)/.installed
WHEEL := build/wheel
# the tests and what they read beside themselves, copied away from the sources, so that only the wheel can be imported
OUTSIDE := build/outside
BESIDE_TESTS := .dockerignore benchmarks docs examples deploy light mkdocs.yml Makefile README.md CHANGELOG.md pyproject.toml constraints.txt SECURITY.md CONTRIBUTING.md
# mypy does not follow editable installs into eval/, integrations/ and trainers/, so it reads an installed copy
TYPED := build/typed

.PHONY: install run test test-all ci-env wheel light browser check bench bench-peers docs pictures tables clean

install: $(DEV)

run: $(CORE)
	@$(BIN)/ctxprune run -q "When is a Flex ticket refunded?" -k 3
	@printf '%s\n' '+ is kept, - is removed; behind it the place in the document and the score. Next, try:' \
		'  $(BIN)/ctxprune run                                        six questions over the sample documents' \
		'  $(BIN)/ctxprune compress -q "your question" --text FILE...  your own text, pruned' \
		'  $(BIN)/ctxprune serve                                      a page to play with, at http://127.0.0.1:8080'

test: $(DEV)
	$(BIN)/python -m pytest

# all but test_wheel.py, test_pictures.py and test_light.py, which read the sources; a test that would be skipped fails
test-all: ci-env wheel
	rm -rf $(OUTSIDE)
	mkdir -p $(OUTSIDE)
	cp -r tests $(BESIDE_TESTS) $(OUTSIDE)
	rm $(OUTSIDE)/tests/test_wheel.py $(OUTSIDE)/tests/test_pictures.py $(OUTSIDE)/tests/test_light.py
	$(ALL)/bin/python -m pytest -m slow tests/test_light.py
	cd $(OUTSIDE) && CTXPRUNE_ALL_TESTS=1 ../../$(ALL)/bin/python -m pytest -m 'not network and not gpu'

ci-env: browser $(ALL_DEV)

# what an earlier build left must not get into the wheel
wheel: $(ALL_DEV)
	rm -rf build
	$(ALL)/bin/python -m build --wheel --no-isolation --outdir $(WHEEL) . > /dev/null
	$(ALL)/bin/python $(INSTALL) --no-deps --force-reinstall $(WHEEL)/*.whl

# Debian's Chromium, where there is none; installing takes root
browser:
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ apt-get -qq update && apt-get -qq install --no-install-recommends -y chromium; }

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(PIP) --no-deps --no-build-isolation --target $(TYPED) .
	cd $(TYPED) && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p ctxprune

# the wheel of the light distribution
light: $(DEV)
	$(BIN)/python light/build.py dist

# the site, with every broken link an error; outputs on the pages are written by tests/docs_pages.py
docs: $(DEV)
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

# those of README and the pages, from the current build; needs the environment of all tests
pictures: ci-env
	$(ALL)/bin/python docs/pictures/make.py

bench: $(DEV)
	$(BIN)/python -m benchmarks.speed

# beside other packages, each in an environment of its own below build/peers; further options in PEERS="..."
bench-peers: $(DEV)
	$(BIN)/python -m benchmarks.peers $(PEERS)

# the tables of README and the pages, from docs/figures; TAKE="quality=FILE ladder=FILE" takes new figures first
tables: $(DEV)
	$(BIN)/python -m benchmarks.tables $(if $(TAKE),--take $(TAKE))

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

$(ALL_DEV): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ALL)
	$(ALL)/bin/python $(INSTALL) setuptools '.[all-tests]'
	touch $@
