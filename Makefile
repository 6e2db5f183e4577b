# The habits of this house; `make help` lists them. Everything lives in .venv and target.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that is new enough; `make setup PYTHON=...` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
RUST := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name 'Cargo.toml')
CORE := -p falcon-tokenizer -p falcon-kernels -p falcon-scheduler

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv was found; install one or run: make setup PYTHON=/path/to/python3"; exit 1; }
	@command -v cargo cc >/dev/null || { echo "cargo and cc are needed; install Rust (rustup.rs) and a C compiler, then run again"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/dependencies.stamp: pyproject.toml | $(BIN)/python
	$(PIP) install 'maturin>=1.14,<2'
	$(PIP) install --no-build-isolation --editable '.[dev,train]'
	@touch $@

$(VENV)/extension.stamp: $(RUST) $(VENV)/dependencies.stamp
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --skip-install --quiet
	@touch $@

.PHONY: setup
setup: $(VENV)/extension.stamp ## make .venv: dependencies and an editable release build; instant when nothing changed

.PHONY: build
build: setup ## rebuild the Rust extension if its sources changed

.PHONY: solve
solve: setup ## answer real problems with the model in the wheel
	$(BIN)/falcon-h1r solve --file docs/examples/problems.jsonl

.PHONY: test
test: setup ## everything that must pass before a change lands
	cargo test --quiet $(CORE)
	$(BIN)/pytest

.venv-peers/dependencies.stamp: tests/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip --disable-pip-version-check --quiet install -r $<
	# The last TRL that has PPO as functions, beside the current one.
	.venv-peers/bin/pip --disable-pip-version-check --quiet install --upgrade --no-deps --target .venv-peers/trl-0.11 trl==0.11.4
	@touch $@

.PHONY: test-peers
test-peers: setup .venv-peers/dependencies.stamp ## compare with libraries that live in an environment of their own
	$(BIN)/pytest -m peers

.PHONY: campaign
campaign: setup ## the long runs; the same command goes on where the last one stopped
	$(BIN)/pytest -m campaign --timeout 3600 $(if $(AGAIN),--again)

.PHONY: lint
lint: setup ## every rule a machine can hold
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy python
	$(BIN)/lint-imports --no-logo
	$(BIN)/stubtest --mypy-config-file pyproject.toml --allowlist tests/house/stubtest_allowlist.txt falcon_h1r._rust

.PHONY: format
format: setup ## rewrite sources in the house style
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: setup ## measure, peers in the same run; JSON goes to benches/results
	$(BIN)/falcon-h1r bench

.PHONY: wheel
wheel: setup ## build wheel and sdist into dist
	$(BIN)/maturin build --release --out dist
	$(BIN)/maturin sdist --out dist

.PHONY: reference-model
reference-model: setup ## train the model in the wheel anew; the same command resumes
	$(BIN)/falcon-h1r train sft --recipe reference_sft --output runs/reference
	cp runs/reference/final/{config,generation_config,thinking,tokenizer,tokenizer_config}.json runs/reference/final/model.safetensors python/falcon_h1r/reference_model/

.PHONY: clean
clean: ## remove everything that the commands above made, but not runs
	rm -rf $(VENV) .venv-peers target dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks
	rm -f python/falcon_h1r/_rust*.so
	find python train triton_kernels tests benches -name __pycache__ -type d -prune -exec rm -rf {} +
