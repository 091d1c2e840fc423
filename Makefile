# Everything a fresh machine with Python 3.11 needs is installed into .venv by the first target that wants it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
LOCK ?= requirements/cpu.lock
BIN := .venv/bin
DATE ?= 2026-06-30

# A folder of wheels that pip knows (PIP_FIND_LINKS) is handed on to uv; without one, uv picks torch's own index by name.
ifdef PIP_FIND_LINKS
UV_SOURCES := --find-links $(PIP_FIND_LINKS)
else ifeq ($(LOCK),requirements/cpu.lock)
UV_SOURCES := --torch-backend cpu
endif

# Ray starts many Python processes: without byte code each compiles its imports again (17 s become 40 s).
unexport PYTHONDONTWRITEBYTECODE
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO := 0
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup demo demo-finetune test test-slow test-nodes test-objectstore test-azurite chaos lint check-lock lock clean build/peers bench bench-full bench-encode bench-nights bench-nightly bench-tasks polarity-model bench-forecast bench-summarize bench-finetune

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/.installed ## install everything into .venv (quick when nothing changed)

.venv/.installed: $(LOCK) pyproject.toml
	@echo "== set-up: $(LOCK) into .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'
	@$(BIN)/uv pip sync -q --python $(BIN)/python $(UV_SOURCES) $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q bizllm
	@touch $@

demo: setup ## tonight's tables of a made-up retailer, then where to look
	@$(BIN)/bizllm run jobs/demo.yaml --date $(DATE)

demo-finetune: setup ## fine-tune a model on sample tickets with two workers, then a night that uses it
	@$(BIN)/bizllm finetune jobs/finetune_intent.yaml
	@$(BIN)/bizllm run jobs/demo_intent.yaml --date $(DATE)
	@echo 'labels    $(BIN)/bizllm show jobs/demo_intent.yaml --sql "select label, count(*) from ticket_intent group by 1"'
	@echo 'versions  $(BIN)/bizllm models show ticket_intent'

test: setup lint check-lock ## lint, types, layers, lock and all tests but the slow ones
	@.ci/tests

test-slow: setup ## the tests that take minutes; writes benchmarks/results/test-slow.md
	@rm -f build/test-slow.xml
	@$(BIN)/python -m pytest -m slow --junitxml=build/test-slow.xml; status=$$?; \
	$(BIN)/python .ci/slow_results.py build/test-slow.xml benchmarks/results/test-slow.md; exit $$status

test-nodes: setup ## nights and trainings on a cluster whose machines are lost (root, Linux); writes benchmarks/results/test-nodes.md
	@rm -f build/test-nodes.xml
	@BIZLLM_REQUIRE_NETNS=1 $(BIN)/python -m pytest tests/jobs/test_nodes.py tests/jobs/test_training_nodes.py --junitxml=build/test-nodes.xml; status=$$?; \
	$(BIN)/python .ci/slow_results.py build/test-nodes.xml benchmarks/results/test-nodes.md 'make test-nodes' \
	'Each machine is a network namespace with an address of its own; all share 2 cores and a disk. Ray gives a silent one up after 5 s here, after 15 to 25 s as it is.'; exit $$status

chaos: setup ## the fault matrix, a run hit at every moment; writes benchmarks/results/chaos.md
	@rm -f build/chaos.xml
	@$(BIN)/python -m pytest tests/chaos --junitxml=build/chaos.xml; status=$$?; \
	$(BIN)/python .ci/chaos_results.py build/chaos.xml benchmarks/results/chaos.md; exit $$status

test-objectstore: setup ## S3 tests and a night against Ceph, from Debian's packages
	@PYTHON=$(BIN)/python tests/objectstore/run.sh

test-azurite: setup ## abfs:// tests and a night against Azurite, from npm
	@PYTHON=$(BIN)/python tests/objectstore/azurite.sh

lint: setup ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check-lock: setup ## the lock files hold what pyproject.toml asks for
	@$(BIN)/python .ci/check_lock.py

lock: ## resolve requirements/*.lock anew (PyPI, and PIP_FIND_LINKS for the CPU build of torch)
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'; }
	@$(BIN)/uv pip compile -q pyproject.toml --extra train --extra engines --extra azure --extra dev --python-version 3.11 $(UV_SOURCES) -o requirements/cpu.lock
	@$(BIN)/uv pip compile -q pyproject.toml --extra train --extra engines --extra azure --extra dev --extra gpu --python-version 3.11 -o requirements/gpu.lock

build/peers: build/peers/.installed ## an environment of their own for benchmarks' peers that ours does not hold

build/peers/.installed: benchmarks/peers/requirements.lock .venv/.installed
	@$(PYTHON) -m venv build/peers
	@$(BIN)/uv pip sync -q --python build/peers/bin/python $(UV_SOURCES) $<
	@touch $@

bench-encode: setup build/peers ## encoding and classifying beside others (BIZLLM_DATA; 15 minutes)
	@$(BIN)/python benchmarks/encode.py

bench: setup ## a short run of the suite into build/bench, beside the committed results (15 minutes; BIZLLM_DATA, build/peers)
	@test -z "$$BIZLLM_DATA" -o ! -x build/peers/bin/python || $(BIN)/python benchmarks/encode.py --texts 200 --rounds 2 --out build/bench
	@test -n "$$BIZLLM_DATA" -a -x build/peers/bin/python || echo "without BIZLLM_DATA and build/peers nothing is encoded beside others"
	@$(BIN)/python benchmarks/fused.py --rows 10000 --rounds 1 --out build/bench
	@$(BIN)/python benchmarks/growth.py --rows 1000 --out build/bench
	@$(BIN)/python benchmarks/simulate.py --out build/bench

bench-full: bench-encode bench-nights ## the whole suite, into benchmarks/results (70 minutes; BIZLLM_DATA)
	@$(BIN)/python benchmarks/fused.py
	@$(BIN)/python benchmarks/growth.py
	@$(BIN)/python benchmarks/simulate.py
	@$(BIN)/python benchmarks/forecast_speed.py --night 100000

bench-nights: setup ## whole nights of 100,000 rows: beside the bare engine loop, 1 % changed, without reuse (20 minutes)
	@$(BIN)/python benchmarks/nights.py

bench-tasks: setup ## what the tasks are worth on real data, beside baselines and published figures (BIZLLM_DATA; 50 minutes)
	@$(BIN)/python benchmarks/tasks.py

polarity-model: setup ## the weights of the built-in sentiment model, learned anew from made-up opinions (seconds)
	@$(BIN)/python benchmarks/polarity_model.py

bench-nightly: setup ## the retail job on real data (BIZLLM_DATA), its time and memory, and the two below
	@$(BIN)/python benchmarks/nightly.py
	@$(BIN)/python benchmarks/forecast.py
	@$(BIN)/python benchmarks/summarize.py

bench-forecast: setup ## M3 and M4 beside the published entrants, and speed (BIZLLM_DATA)
	@$(BIN)/python benchmarks/forecast.py
	@$(BIN)/python benchmarks/forecast_speed.py

bench-summarize: setup ## ROUGE beside LEAD-3 and TextRank (BIZLLM_DATA)
	@$(BIN)/python benchmarks/summarize.py

bench-finetune: setup ## fine-tuning: scores beside published ones and controls, speed, memory (BIZLLM_DATA; hours)
	@$(BIN)/python benchmarks/finetune.py all
	@$(BIN)/python benchmarks/train_speed.py --stage 0
	@$(BIN)/python benchmarks/train_speed.py --stage 1
	@$(BIN)/python benchmarks/train_stages.py
	@$(BIN)/python benchmarks/train_memory.py

clean: ## remove what the demo made
	rm -rf out
