# Unmask's tasks. `make` alone prints them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.NOTPARALLEL:

# The first CPython that will do; `make PYTHON=/path/to/python3.12 …` chooses another. Looked for only when an environment is made.
SUITABLE := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
PYTHON = $(shell for p in python3 python3.13 python3.12 python3.11; do "$$p" $(SUITABLE) && { echo "$$p"; break; }; done)
BIN := .venv/bin
TRAIN := .venv-training/bin
FACES ?= $(UNMASK_FACES)
MANIPULATED ?= $(UNMASK_MANIPULATED)
OUT ?= build
ARGS ?=
# What `buf breaking` compares with: the last published main, where there is a remote.
AGAINST ?= $(shell git rev-parse --quiet --verify origin/main >/dev/null 2>&1 && echo origin/main || echo main)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call install,VENV,LOCK): the locked files, every one checked against its hash. uv does it in seconds but does not read pip's
# configuration, so where only pip's own index can be reached pip does the same.
define install
	@echo "installing $(2) into $(1)"
	@$(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes --no-deps -r $(2) \
		|| $(1)/bin/python -m pip install --quiet --require-hashes --no-deps -r $(2)
endef

# $(call editable,VENV,DIR): the checkout itself, built by the locked setuptools.
define editable
	@$(BIN)/uv pip install --quiet --python $(1)/bin/python --offline --no-deps --no-build-isolation --editable $(2)
endef

# $(call venv,DIR): an environment with pip (`unmask models fetch` runs it).
define venv
	@"$(PYTHON)" $(SUITABLE) || { echo "CPython 3.11, 3.12 or 3.13 is needed: none found on PATH (make PYTHON=/path/to/python)" >&2; exit 2; }
	@"$(PYTHON)" -m venv $(1) || { echo "could not make $(1): on Debian and Ubuntu, install python3-venv" >&2; exit 2; }
endef

##@ Start here

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: .venv/.demo fetch ## a photograph, a generated face and a doctored photograph -> three verdicts and a page to look at
	@$(BIN)/unmask demo --out $(OUT)/demo $(ARGS)

.PHONY: up
up: setup ## the whole platform on this machine, for development, until Ctrl-C (ARGS="--broker rabbitmq --port N")
	@$(BIN)/unmask up --state $(OUT)/up $(ARGS)

.PHONY: test
test: test-fast test-training test-deploy ## every test (sets up all environments)

.PHONY: test-fast
test-fast: setup ## the tests of the serving half
	@$(BIN)/python -m pytest tests --ignore=tests/training --ignore=tests/deploy --ignore=tests/helm $(ARGS)

.PHONY: test-training
test-training: .venv-training/.ready fetch ## the tests of the training half
	@$(TRAIN)/python -m pytest tests/training $(ARGS)

# These run with what .venv-deploy holds: not with tests/conftest.py, which needs the servers', nor with a plugin that it lacks half of.
DEPLOY_PYTEST = .venv-deploy/bin/python -m pytest -p no:cloudcoil --confcutdir=tests/helm

.PHONY: test-deploy
test-deploy: setup .venv-deploy/.ready ## the tests of the deployment: chart, image, compose file, supply chain, documents
	@$(DEPLOY_PYTEST) tests/helm $(ARGS)
	@$(BIN)/python -m pytest tests/deploy $(ARGS)

.PHONY: chaos
chaos: setup ## 1 000 pictures while workers and servers are killed; prints the ledger (ARGS="--broker valkey --pictures N")
	@$(BIN)/python -m tests.system.chaos $(ARGS)

.PHONY: certs
certs: .venv/.dev ## certificates for TLS between services, for development, into OUT/certs
	@$(BIN)/python -m unmask_dev.certs $(OUT)/certs $(ARGS)

##@ Environments

.PHONY: setup
setup: .venv/.dev .venv-triton/.ready fetch ## .venv with everything to run, test and lint, .venv-triton, the face detector's weights

.PHONY: setup-training
setup-training: .venv-training/.ready ## .venv-training with torch (about 1 GB)

.PHONY: setup-deploy
setup-deploy: .venv-deploy/.ready ## .venv-deploy with helm and what else checks charts, dashboards, images and documents

.PHONY: setup-triton
setup-triton: .venv-triton/.ready ## .venv-triton with a real Triton for development and tests (about 290 MB)

.venv/.tools: locks/tools.txt
	$(call venv,.venv)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r locks/tools.txt
	@touch $@

.venv/.demo: locks/demo.txt pyproject.toml .venv/.tools
	$(call install,.venv,locks/demo.txt)
	$(call editable,.venv,.)
	@touch $@

.venv/.dev: locks/dev.txt pyproject.toml .venv/.tools
	$(call install,.venv,locks/dev.txt)
	$(call editable,.venv,.)
	$(call editable,.venv,deploy/dev)
	@touch .venv/.demo $@

.venv-triton/.ready: locks/triton.txt .venv/.tools
	$(call venv,.venv-triton)
	$(call install,.venv-triton,locks/triton.txt)
	@touch $@

# pip and not uv for torch: pip knows where this machine finds its CPU build (find-links, extra indexes), and takes it before PyPI's.
.venv-training/.ready: locks/training.txt training/constraints-cpu.txt training/pyproject.toml pyproject.toml .venv/.tools
	$(call venv,.venv-training)
	$(call install,.venv-training,locks/training.txt)
	@echo "installing torch into .venv-training"
	@$(TRAIN)/python -m pip install --quiet --no-warn-conflicts --constraint training/constraints-cpu.txt torch
	$(call editable,.venv-training,.)
	$(call editable,.venv-training,training)
	@touch $@

.venv-deploy/.ready: locks/deploy.txt pyproject.toml .venv/.tools
	$(call venv,.venv-deploy)
	$(call install,.venv-deploy,locks/deploy.txt)
	$(call editable,.venv-deploy,.)
	@touch $@

.PHONY: lock
lock: .venv/.tools ## resolve again: locks/*.txt from pyproject.toml and locks/*.in (ARGS=--upgrade for newer versions)
	@set -e; compile() { $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS) "$$@"; }; \
	compile locks/tools.in -o locks/tools.txt; \
	compile pyproject.toml --extra demo --extra dev --extra service --extra servers -c locks/tools.txt -o locks/dev.txt; \
	compile pyproject.toml --extra demo -c locks/dev.txt -o locks/demo.txt; \
	compile pyproject.toml locks/training.in --override locks/training-overrides.in -c locks/dev.txt -o locks/training.txt; \
	compile pyproject.toml --extra service -c locks/dev.txt -o locks/service.txt; \
	compile --no-deps locks/triton.in -c locks/dev.txt -o locks/triton.txt; \
	compile locks/deploy.in --override locks/deploy-overrides.in -c locks/dev.txt -o locks/deploy.txt; \
	sed -i -E 's/ ; [^\\]*\\$$/ \\/' locks/*.txt # every line says "Linux, x86-64, CPython < 3.14", as pyproject.toml does once

##@ Checks

.PHONY: lint
lint: .venv/.dev lint-style lint-types lint-imports proto-check ## style, types, imports, protos

.PHONY: lint-style
lint-style: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: lint-types
lint-types: .venv/.dev
	@$(BIN)/mypy services/unmask training/unmask_training deploy/dev/unmask_dev deploy/grafana/unmask_dashboards deploy/image deploy/supply

.PHONY: lint-imports
lint-imports: .venv/.dev
	@PYTHONPATH=services:training $(BIN)/lint-imports

.PHONY: format
format: .venv/.dev ## put the sources into the house's format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

##@ Chart

.PHONY: chart-check
chart-check: .venv-deploy/.ready ## helm lint, both majors of helm, golden renderings, schemas of Kubernetes and its operators, policies
	@$(DEPLOY_PYTEST) --quiet tests/helm $(ARGS)

.PHONY: chart-golden
chart-golden: .venv-deploy/.ready ## write the golden renderings and the chart's table of values again
	@.venv-deploy/bin/python -m tests.helm.golden
	@.venv-deploy/bin/python -m tests.helm.readme

##@ Metrics

# Dashboards are written by code of .venv-deploy; promtool and prometheus are the machine's (apt install prometheus).
GRAFANA = PYTHONPATH=services:deploy/grafana .venv-deploy/bin/python

.PHONY: dashboards
dashboards: .venv-deploy/.ready ## write helm/unmask/dashboards again from deploy/grafana
	@$(GRAFANA) -m unmask_dashboards helm/unmask/dashboards

.PHONY: dashboards-check
dashboards-check: .venv-deploy/.ready ## the checked-in dashboards are what deploy/grafana gives; Prometheus' parser reads each expression
	@$(GRAFANA) -m unmask_dashboards helm/unmask/dashboards --check
	@$(GRAFANA) -m unmask_dashboards.check helm/unmask

.PHONY: alerts-check
alerts-check: ## promtool: the rules are valid, and fire when they should
	@command -v promtool >/dev/null || { echo "no promtool: apt install prometheus" >&2; exit 2; }
	@promtool check rules helm/unmask/rules/*.yaml
	@promtool test rules deploy/prometheus/tests/*.yaml

##@ Deployment

IMAGE ?= unmask
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: image
image: ## the image of every service, and the one with models in it (needs docker; IMAGE=NAME)
	@docker info >/dev/null 2>&1 || { echo "make image: no Docker engine answers here; make image-root assembles the same without one" >&2; exit 2; }
	@for target in service with-models; do tag="$(IMAGE):$(VERSION)$$([[ $$target == service ]] || echo -models)"; \
	docker build --file deploy/Dockerfile --target "$$target" --tag "$$tag" --build-arg VERSION="$(VERSION)" \
		--build-arg REVISION="$$(git rev-parse HEAD)" --build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(ARGS) .; done

.PHONY: image-root
image-root: .venv/.dev ## what the image holds, without Docker: OUT/image/root and the wheel in OUT/image/dist
	@$(BIN)/python deploy/image/assemble.py here "$(OUT)/image" && du -sm "$(OUT)/image/root" | sed 's/\t.*/ MB/'

.PHONY: image-check
image-check: .venv/.dev setup-deploy ## hadolint, the image's root tried in a bare environment, the compose file and what it runs
	@.venv-deploy/bin/hadolint deploy/Dockerfile deploy/Dockerfile.training
	@$(BIN)/python -m pytest tests/deploy/test_image.py tests/deploy/test_compose.py tests/deploy/test_compose_run.py $(ARGS)

.PHONY: sbom
sbom: image-root setup-deploy ## bill of materials (CycloneDX) of what the image runs, into OUT/sbom.cdx.json
	@.venv-deploy/bin/python -m deploy.supply.sbom "$(OUT)/image" "$(OUT)/sbom.cdx.json"

.PHONY: licences
licences: sbom ## hold its licences against deploy/supply/policy.toml and write deploy/supply/LICENCES.md (ARGS=--check)
	@.venv-deploy/bin/python -m deploy.supply.licences "$(OUT)/sbom.cdx.json" $(ARGS)

.PHONY: audit
audit: setup-deploy ## known vulnerabilities of its packages, by pip-audit (needs the network; says when nothing answered)
	@.venv-deploy/bin/python -m deploy.supply.audit

.PHONY: docs
docs: setup-deploy ## build docs/ into OUT/docs, strictly: every link and anchor has to lead somewhere
	@.venv-deploy/bin/mkdocs --quiet build --strict --site-dir "$(abspath $(OUT))/docs"

.PHONY: secrets
secrets: ## the secrets of deploy/compose.yaml that are not there yet, into deploy/secrets (ARGS="NAME…" of the server, for TLS)
	@deploy/compose-secrets.sh $(ARGS)

##@ Protos

PROTOC = $(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) proto/unmask/v1/*.proto

.PHONY: proto
proto: .venv/.dev ## write services/unmask/v1 again from proto/
	@rm -f services/unmask/v1/*_pb2*.py services/unmask/v1/*_pb2.pyi
	@$(call PROTOC,services)

.PHONY: proto-check
proto-check: .venv/.dev ## the checked-in code is what proto/ gives; buf lint; buf breaking against main
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(call PROTOC,"$$fresh"); \
	diff -r --exclude=__init__.py --exclude=__pycache__ "$$fresh/unmask/v1" services/unmask/v1 \
		|| { echo "services/unmask/v1 is not what proto/ gives: run make proto" >&2; exit 1; }
	@$(BIN)/buf lint
	@if git cat-file -e "$(AGAINST):buf.yaml" 2>/dev/null; then $(BIN)/buf breaking --against ".git#ref=$(AGAINST)"; \
	else echo "buf breaking: skipped, $(AGAINST) has no protos to compare with yet"; fi

##@ Models

.PHONY: fetch
fetch: .venv/.demo ## only fetch (setup, demo and test do)
	@$(BIN)/unmask models fetch

.PHONY: models
models: fetch ## fetch what weights.lock names, then check every file of model_repository/
	@$(BIN)/unmask models verify

.PHONY: bench
bench: setup ## pictures per second end to end over what decoding and the models alone allow
	@$(BIN)/python bench/embedded.py $(ARGS)

.PHONY: bench-platform
bench-platform: setup ## the platform over its models: CPU a hop, pictures per second, latency, workers, store (ARGS=--quick)
	@$(BIN)/python -m bench.distributed $(ARGS)

# Both write under OUT and leave the checkout's model_repository/ alone: a better model becomes the next version by hand.
.PHONY: adapt-demo
adapt-demo: MODEL ?= model_repository/detector/3
adapt-demo: .venv/.demo .venv-training/.ready fetch ## 60 generated faces: learn from 10, show 50 before and after (ARGS="--forget NAME"; MODEL=VERSION-FOLDER)
	@$(BIN)/unmask demo --faces 60 --seed 0 --out "$(OUT)/adapt-demo/faces"
	@$(TRAIN)/unmask-train adapt-demo "$(MODEL)" --faces "$(OUT)/adapt-demo/faces" --out "$(OUT)/adapt-demo" $(ARGS)

.PHONY: train-detector
train-detector: .venv-training/.ready fetch ## train the detector into OUT/models (FACES=DIR; an hour or more; ARGS=--resume)
	@test -d "$(FACES)" || { echo "say where the faces are: make $@ FACES=DIR" >&2; exit 2; }
	@mkdir -p "$(OUT)/models"
	@$(BIN)/unmask models fetch mobilenet_v2 --out "$(OUT)/mobilenet_v2.pth"
	@$(TRAIN)/unmask-train prepare "$(FACES)" --out "$(OUT)/data"
	@$(TRAIN)/unmask-train fit --config training/configs/detector.yaml --data "$(OUT)/data" --out "$(OUT)/detector" \
		--weights "$(OUT)/mobilenet_v2.pth" $(ARGS)
	@$(TRAIN)/unmask-train export "$(OUT)/detector/detector.pt" --config training/configs/detector.yaml --data "$(OUT)/data" \
		--repository "$(OUT)/models"

.PHONY: train-tower
train-tower: .venv-training/.ready fetch ## train the detector on CLIP's tower into OUT/models (FACES=DIR; two hours or more; ARGS=--resume)
	@test -d "$(FACES)" || { echo "say where the faces are: make $@ FACES=DIR" >&2; exit 2; }
	@mkdir -p "$(OUT)/models"
	@$(BIN)/unmask models fetch clip_vit_b16 --out "$(OUT)/clip_vit_b16.onnx"
	@$(TRAIN)/unmask-train prepare "$(FACES)" --out "$(OUT)/data"
	@$(TRAIN)/unmask-train fit --config training/configs/detector_tower.yaml --data "$(OUT)/data" --out "$(OUT)/tower" \
		--weights "$(OUT)/clip_vit_b16.onnx" $(ARGS)
	@$(TRAIN)/unmask-train export "$(OUT)/tower/tower.pt" --config training/configs/detector_tower.yaml --data "$(OUT)/data" \
		--weights "$(OUT)/clip_vit_b16.onnx" --repository "$(OUT)/models" --version 3

.PHONY: train-localizer
train-localizer: .venv-training/.ready fetch ## train the localizer on CLIP's tower into OUT/models (FACES=DIR MANIPULATED=DIR; two hours or more; ARGS=--resume)
	@test -d "$(FACES)" -a -d "$(MANIPULATED)" || { echo "say where the faces are: make $@ FACES=DIR MANIPULATED=DIR" >&2; exit 2; }
	@mkdir -p "$(OUT)/models"
	@$(BIN)/unmask models fetch clip_vit_b16 --out "$(OUT)/clip_vit_b16.onnx"
	@$(TRAIN)/unmask-train prepare "$(FACES)" --out "$(OUT)/data"
	@$(TRAIN)/unmask-train prepare-regions --data "$(MANIPULATED)" "$(FACES)" --out "$(OUT)/data"
	@test -f "$(OUT)/data/autoencoders.safetensors" || \
		$(TRAIN)/unmask-train autoencoders --data "$(OUT)/data" --out "$(OUT)/data/autoencoders.safetensors"
	@$(TRAIN)/unmask-train fit --config training/configs/localizer_tower.yaml --data "$(OUT)/data" --out "$(OUT)/localizer" \
		--weights "$(OUT)/clip_vit_b16.onnx" $(ARGS)
	@$(TRAIN)/unmask-train export-localizer "$(OUT)/localizer/localizer.pt" --config training/configs/localizer_tower.yaml \
		--data "$(OUT)/data" --weights "$(OUT)/clip_vit_b16.onnx" --repository "$(OUT)/models" --version 3

##@ Cleaning

.PHONY: clean
clean: ## what builds and tools left behind (environments, models and data stay)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache services/*.egg-info training/*.egg-info
	@find services training tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: clean-all
clean-all: clean ## the environments too
	@rm -rf .venv .venv-training .venv-triton
