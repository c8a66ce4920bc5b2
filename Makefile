# Every verb of the project. `make help` lists them; nothing here needs root, Docker or a GPU.
#
# The tools live in git-ignored folders of the tree (.tools, .venv). What takes minutes to build
# (Kubernetes binaries, the environment of real vLLM) is cached outside it: $DORMOUSE_CACHE, by
# default ~/.cache/dormouse.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
BIN := .venv/bin
STAMP := .venv/.dormouse-installed

.PHONY: help
help: ## list every verb
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## make the Python environment in .venv (done by every verb that needs it)

.tools/uv/bin/uv:
	@echo "==> no uv on PATH: installing a pinned one into .tools/uv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .tools/uv
	@.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(STAMP): $(UV) requirements/dev.txt pyproject.toml engine_image/pyproject.toml
	@echo "==> Python environment in .venv"
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip sync --quiet --require-hashes requirements/dev.txt
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip install --quiet --no-deps -e . -e engine_image
	@touch $@
