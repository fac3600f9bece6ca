# Two commands matter: `make demo` and `make test`. Each installs first when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO_OUT ?= demo_output
WORKERS ?= 2
DIST := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: install develop demo test coverage test-portable test-portable-short lint lint-web format types links docs clean

# What runs fieldmorph: the packages it needs, those of its viewer and of its tensor models.
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt apps/package/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fieldmorph needs Python 3.11 or newer; got %d.%d (set PYTHON=...)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[view,bayes,maps]'
	@touch $@

# In addition what tests and checks it.
develop: $(VENV)/.developed

$(VENV)/.developed: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/fieldmorph demo -o $(DEMO_OUT) --force

test: lint types
	$(BIN)/python -m pytest $(DIST)

# The tests with the lines that none of them runs; kernels compiled by numba count as not run.
coverage: develop
	$(BIN)/python -m pytest $(DIST) --cov=fields --cov=distill --cov=bayes --cov=apps \
		--cov-report=term:skip-covered --cov-report=html:build/coverage

# Bounds of the tests hold on every x86-64 processor. `make test-portable` runs those marked `numerical` twice: compiled
# for a processor without FMA, and with FMA and AVX2 but nothing newer. The short form takes those of float32 loops that
# the compiler may contract to FMA (marked `compiled`), without FMA: about a minute and a half on two cores, compilation included.
WITHOUT_FMA := NUMBA_CPU_NAME=generic NUMBA_CACHE_DIR=$(CURDIR)/build/numba/generic
WITH_AVX2 := NUMBA_CPU_NAME=haswell NUMBA_CACHE_DIR=$(CURDIR)/build/numba/haswell \
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2

test-portable: develop
	$(WITHOUT_FMA) $(BIN)/python -m pytest $(DIST) -m numerical
	$(WITH_AVX2) $(BIN)/python -m pytest $(DIST) -m numerical

test-portable-short: develop
	$(WITHOUT_FMA) $(BIN)/python -m pytest $(DIST) -m compiled

lint: develop links lint-web
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=build/typing $(BIN)/lint-imports

format: develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The web client's linters run on a copy, so that no package of theirs lies among the sources.
lint-web:
	@if ! command -v npm >/dev/null; then echo "lint-web: skipped, since npm is not installed"; exit 0; fi; \
	mkdir -p build/lint-web && cd build/lint-web && \
	find . -mindepth 1 -maxdepth 1 ! -name node_modules -exec rm -rf {} + && cp -R ../../apps/web/. . && \
	if ! cmp -s package-lock.json node_modules/.installed; then \
		if ! npm ci >npm.log 2>&1; then \
			tail -n 5 npm.log; if grep -q EUSAGE npm.log; then exit 1; fi; \
			echo "lint-web: skipped, since npm cannot install the linters"; exit 0; \
		fi; \
		cp package-lock.json node_modules/.installed; \
	fi; \
	npm run --silent lint && echo "lint-web: passed"

# The folders as one package, for tools that do not follow package-dir: mypy, import-linter, mkdocstrings.
links:
	@mkdir -p build/typing/fieldmorph
	@for part in fields distill bayes apps; do ln -sfn ../../../$$part build/typing/fieldmorph/$$part; done
	@for file in __init__.py __main__.py py.typed; do ln -sfn ../../../apps/package/$$file build/typing/fieldmorph/$$file; done

types: develop links
	$(BIN)/mypy -p fieldmorph

# README.md of docs/ is the index; links to files outside docs/ are left as they are.
docs: links $(VENV)/.documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(VENV)/.documented: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
