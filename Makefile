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
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

# The model in the wheel, stage by stage: each is one command, which goes on by itself where it was
# stopped. STAGE.inputs holds digests of what a stage is made of; where they differ from those it
# began with, what it had made is put aside as STAGE.old and it begins anew. Options that a stage
# gets beside its own are OPTIONS_STAGE.
REFERENCE := runs/reference
WHEEL_MODEL := python/falcon_h1r/reference_model
# What the recipes teach and the card measures; the generators know two families more.
FAMILIES := sums products equations booleans bracketed lies navigate dyck_languages hyperbaton \
	object_counting temporal_sequences tracking_shuffled_objects date_understanding \
	geometric_shapes logical_deduction penguins_in_a_table reasoning_about_colored_objects
space := $(subst ,, )
comma := ,
joined = $(subst $(space),$(comma),$(strip $(1)))
# Products of one digit are a drill, of which nothing is held out.
TASKS := $(filter-out reference:products@1,$(foreach level,1 2 3,$(FAMILIES:%=reference:%@$(level))))
OPTIONS_calibrated = --card $(WHEEL_MODEL)/README.md --families $(call joined,$(FAMILIES)) \
	--levels 3 --problems 32
OPTIONS_eval := --tasks $(call joined,$(TASKS)) --limit 25 --budget 16 --replay

ifdef SMOKE
REFERENCE := runs/reference-smoke
WHEEL_MODEL := $(REFERENCE)/wheel
SMALL := --set 'model={hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, \
	num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16, mamba_d_ssm: 32, \
	mamba_n_heads: 2, mamba_d_state: 8, max_position_embeddings: 1024}' \
	--set checkpoint_seconds=2 --set optimizer.warmup_steps=2 --set evaluate_count=1
OPTIONS_curated := --set sources.generated.count=1500 --set shard_size=500
OPTIONS_warm := $(SMALL) --set optimizer.steps=20
OPTIONS_easy := $(SMALL) --set optimizer.steps=20
OPTIONS_sft := $(SMALL) --set optimizer.steps=60 --set evaluate_every=30
OPTIONS_polish := --set checkpoint_seconds=2 --set optimizer.warmup_steps=2 --set optimizer.steps=20
OPTIONS_grpo := --set optimizer.steps=3 --set evaluate_every=0 --set rollout.num_prompts=4 \
	--set rollout.max_prompts=8 --set rollout.max_tokens=64
OPTIONS_calibrated = --card $(WHEEL_MODEL)/README.md --families sums,navigate --problems 2 --traces 2 --max-tokens 32
OPTIONS_eval := --tasks reference:sums,reference:navigate --limit 2 --budget 2 --max-tokens 32
endif

STAGE_curated := $(REFERENCE)/curated/manifest.json
STAGE_warm := $(REFERENCE)/warm/final/manifest.json
STAGE_easy := $(REFERENCE)/easy/final/manifest.json
STAGE_sft := $(REFERENCE)/sft/final/manifest.json
STAGE_polish := $(REFERENCE)/polish/final/manifest.json
STAGE_grpo := $(REFERENCE)/grpo/final/manifest.json
STAGE_calibrated := $(REFERENCE)/calibrated/manifest.json
STAGE_eval := $(REFERENCE)/eval/finished

.PHONY: reference-model
reference-model: setup ## train the model in the wheel anew; the same command resumes
	@$(MAKE) --no-print-directory reference-stages

.PHONY: reference-model-smoke
reference-model-smoke: setup ## the same at toy size in two minutes, into runs/reference-smoke
	@$(MAKE) --no-print-directory reference-stages SMOKE=1

.PHONY: reference-stages
reference-stages: $(STAGE_eval)
	cd $(REFERENCE)/calibrated && cp model.safetensors config.json generation_config.json \
		thinking.json tokenizer.json tokenizer_config.json $(abspath $(WHEEL_MODEL))/

$(REFERENCE)/curated.inputs: train/recipes/reference_curate.yaml train/vocabulary.py $(wildcard train/tasks/*.py)
$(STAGE_curated): $(REFERENCE)/curated.inputs
	$(BIN)/falcon-h1r curate --recipe reference_curate --output $(REFERENCE)/curated $(OPTIONS_curated)

$(REFERENCE)/warm.inputs: train/recipes/reference_warm.yaml $(STAGE_curated)
$(STAGE_warm): $(REFERENCE)/warm.inputs
	$(BIN)/falcon-h1r train sft --recipe reference_warm --output $(REFERENCE)/warm \
		--set data.tokenizer=$(REFERENCE)/curated $(OPTIONS_warm)

$(REFERENCE)/easy.inputs: train/recipes/reference_easy.yaml $(STAGE_warm) $(STAGE_curated)
$(STAGE_easy): $(REFERENCE)/easy.inputs
	$(BIN)/falcon-h1r train sft --recipe reference_easy --output $(REFERENCE)/easy \
		--set init_from=$(REFERENCE)/warm/final --set data.tokenizer=$(REFERENCE)/curated $(OPTIONS_easy)

$(REFERENCE)/sft.inputs: train/recipes/reference_sft.yaml $(STAGE_easy) $(STAGE_curated)
$(STAGE_sft): $(REFERENCE)/sft.inputs
	$(BIN)/falcon-h1r train sft --recipe reference_sft --output $(REFERENCE)/sft \
		--set init_from=$(REFERENCE)/easy/final --set data.source=$(REFERENCE)/curated $(OPTIONS_sft)

$(REFERENCE)/polish.inputs: train/recipes/reference_polish.yaml $(STAGE_sft)
$(STAGE_polish): $(REFERENCE)/polish.inputs
	$(BIN)/falcon-h1r train sft --recipe reference_polish --output $(REFERENCE)/polish \
		--set init_from=$(REFERENCE)/sft/final $(OPTIONS_polish)

$(REFERENCE)/grpo.inputs: train/recipes/reference_grpo.yaml $(STAGE_polish)
$(STAGE_grpo): $(REFERENCE)/grpo.inputs
	$(BIN)/falcon-h1r train grpo --recipe reference_grpo --output $(REFERENCE)/grpo \
		--set model=$(REFERENCE)/polish/final $(OPTIONS_grpo)

$(REFERENCE)/calibrated.inputs: $(STAGE_grpo)
$(STAGE_calibrated): $(REFERENCE)/calibrated.inputs | $(WHEEL_MODEL)/README.md
	$(BIN)/falcon-h1r calibrate --model $(REFERENCE)/grpo/final --output $(REFERENCE)/calibrated \
		$(OPTIONS_calibrated)

$(REFERENCE)/eval.inputs: $(STAGE_calibrated) $(STAGE_curated)
$(STAGE_eval): $(REFERENCE)/eval.inputs | $(WHEEL_MODEL)/README.md
	$(BIN)/falcon-h1r eval --model $(REFERENCE)/calibrated --output $(REFERENCE)/eval \
		--training-set $(REFERENCE)/curated --card $(WHEEL_MODEL)/README.md $(OPTIONS_eval)
	@touch $@

$(REFERENCE)/%.inputs: FORCE
	@mkdir -p $(@D)
	@sha256sum $(filter-out FORCE,$^) >$@.new
	@printf '%s\n' $(OPTIONS_$*) >>$@.new
	@if cmp -s $@.new $@; then rm $@.new; else \
		rm -rf $(@D)/$*.old; \
		if [ -e $(@D)/$* ]; then echo "$* is made of something else now; see $(@D)/$*.old"; \
			mv $(@D)/$* $(@D)/$*.old; fi; \
		rm -rf $(@D)/$*.work; mv $@.new $@; fi
.PHONY: FORCE
FORCE:

$(REFERENCE)/wheel/README.md:
	@mkdir -p $(@D)
	cp python/falcon_h1r/reference_model/README.md $@

.PHONY: clean
clean: ## remove everything that the commands above made, but not runs
	rm -rf $(VENV) .venv-peers target dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks
	rm -f python/falcon_h1r/_rust*.so
	find python train triton_kernels tests benches -name __pycache__ -type d -prune -exec rm -rf {} +
