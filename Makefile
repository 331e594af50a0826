# Two commands: `make site` builds and serves the atlas, `make test` checks everything that CI checks.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
SHELL := /bin/bash
export NO_MKDOCS_2_WARNING := 1

SOURCES := $(shell find catalog docs overrides reference_impls tools mkdocs.yml \
             \( -name __pycache__ -o -path docs/catalog \) -prune -o -print 2>/dev/null)

.PHONY: site test check pages build clean help

help:
	@echo "make site   build the atlas, serve it on http://127.0.0.1:$(PORT) (PORT= to change), build again what you edit"
	@echo "make test   run everything that CI runs"
	@echo "make check  check the catalog"
	@echo "make clean  remove what was built"

site: .venv/site.installed
	@$(BIN)/python -m tools.serve --port $(PORT) --probe
	@$(MAKE) --no-print-directory build
	@$(BIN)/python -m tools.serve --port $(PORT) --folder site --watch

build: site/index.html

site/index.html: $(SOURCES) .venv/site.installed
	@$(BIN)/python -m tools check
	@$(BIN)/python -m tools site
	@$(BIN)/mkdocs build --strict
	@$(BIN)/python -m tools.csp site
	@touch $@

check: .venv/site.installed
	@$(BIN)/python -m tools check

test: .venv/test.installed
	@$(BIN)/python -m tools check
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

clean:
	rm -rf site docs/catalog build .pytest_cache

# Installing: the site needs no torch, the tests need everything.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: Python 3.11 or later is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing); set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "make: could not create .venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

.venv/%.installed: pyproject.toml constraints.txt | .venv/bin/python
	@mkdir -p build
	@echo "installing what $* needs into .venv (log: build/install-$*.log)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]' > build/install-$*.log 2>&1 || \
	  { echo "make: the install failed: $$(grep -E '^ERROR' build/install-$*.log | head -n 1); see build/install-$*.log"; exit 1; }
	@touch $@
