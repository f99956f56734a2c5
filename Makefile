# Two commands do everything on a machine with Python ≥ 3.11 and make:
#   make demo    sets up and runs the main job on photos that ship in the repository
#   make test    sets up and passes the tests; `make check` does the quick ones alone
PYTHON ?= python3
DEMO_ENV := .venv
TEST_ENV := .venv-test
DOCS_ENV := .venv-docs
# A worker runs a module whole, so that its fixtures are made once; tests/conftest.py has the longest ones run first.
SPREAD := -n 2 --dist loadscope --no-loadscope-reorder
PIP := -m pip --disable-pip-version-check --no-input

.PHONY: check demo docs test test-photos lint clean

demo: $(DEMO_ENV)/ready
	$(DEMO_ENV)/bin/nameplate demo

# While one works: lint, types, import contracts, and the tests that need no torch, server, browser, database or cluster.
check: $(TEST_ENV)/ready lint
	$(TEST_ENV)/bin/python -m pytest --fast $(SPREAD)

test: $(TEST_ENV)/ready lint
	$(TEST_ENV)/bin/python -m pytest $(SPREAD)

# Those that need real photos; NAMEPLATE_PHOTOS is their folder: see CONTRIBUTING.md.
test-photos: $(TEST_ENV)/ready
	$(TEST_ENV)/bin/python -m pytest $(SPREAD) -m 'photos and not slow'

# The documentation's site, into site/; the gallery's pages are made once, from the embedded photos.
docs: $(DOCS_ENV)/ready
	$(DOCS_ENV)/bin/python -m tools.gallery build/gallery
	$(DOCS_ENV)/bin/python -m mkdocs build --clean

lint: $(TEST_ENV)/ready
	$(TEST_ENV)/bin/ruff check .
	$(TEST_ENV)/bin/ruff format --check .
	$(TEST_ENV)/bin/mypy
	$(TEST_ENV)/bin/lint-imports

$(DEMO_ENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nameplate needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(DEMO_ENV)
	$(DEMO_ENV)/bin/python $(PIP) install --quiet --editable '.[fast]'
	touch $@

$(TEST_ENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nameplate needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(TEST_ENV)
	$(TEST_ENV)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(TEST_ENV)/bin/python $(PIP) install --quiet --editable '.[cloud,export,fast,heic,hub,otel,parquet,postgres,quantize,ray,serve,train]' --group dev
	touch $@

$(DOCS_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS_ENV)
	$(DOCS_ENV)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(DOCS_ENV)/bin/python $(PIP) install --quiet --editable . --group docs
	touch $@

clean:
	rm -rf $(DEMO_ENV) $(TEST_ENV) $(DOCS_ENV) nameplate-demo build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
