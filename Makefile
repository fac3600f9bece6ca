# Two commands matter: `make demo` and `make test`. Each installs first when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo_output
WORKERS ?= 2

.PHONY: install demo test lint types clean
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fieldmorph needs Python 3.11 or newer; got %d.%d (set PYTHON=...)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/fieldmorph demo -o $(DEMO_OUT) --force

test: lint types
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# mypy reads the namespace through links, since it does not follow package-dir.
types: install
	@mkdir -p build/typing/fieldmorph
	@for room in fields distill bayes apps; do ln -sfn ../../../$$room build/typing/fieldmorph/$$room; done
	$(BIN)/mypy -p fieldmorph.fields -p fieldmorph.distill -p fieldmorph.bayes -p fieldmorph.apps

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
