# Two commands matter: `make run` and `make test`. Both set everything up by themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.12 ...")'
	@echo "installing into $(VENV): takes some minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/bootstrap.txt requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP) ## install everything into .venv from the lock

# Taken from the command line alone, and as they were typed: neither expanded by make nor put into the
# shell's text, since a path may hold anything.
RUN_WORDS := DATASET TEST CONFIG FINETUNE MINUTES ARGS
$(foreach word,$(RUN_WORDS),$(eval override $(word) := $$(if $$(filter command,$$(origin $(word))),$$(value $(word)))))
export $(RUN_WORDS)
ifneq ($(filter run,$(MAKECMDGOALS)),)
MISSPELT := $(filter-out $(RUN_WORDS) PYTHON BIN,$(foreach word,$(.VARIABLES),$(if $(filter command,$(origin $(word))),$(word))))
$(if $(MISSPELT),$(error make run has no word $(firstword $(MISSPELT)): its words are $(RUN_WORDS)))
endif

run: setup ## train on a sample, or on DATASET=export.zip [TEST=…] [CONFIG=preset or .yaml] [FINETUNE=weights:NAME] [MINUTES=…] [ARGS="key=value …"]
	@if [ -z "$$DATASET" ]; then \
	  $(BIN)/data-prep make-sample runs/sample || exit; \
	  DATASET=runs/sample/sample_trainval.zip TEST=$${TEST:-runs/sample/sample_test.zip}; \
	fi; \
	exec $(BIN)/detr-workflows run-local --store runs/store --scratch runs/scratch -p device=auto \
	  -p "cvat-annotation-path=$$DATASET" -p "cvat-test-path=$$TEST" -p "model=$${CONFIG:-auto}" \
	  -p "cvat-finetune-checkpoint=$$FINETUNE" -p "minutes=$$MINUTES" -p "overrides=$$ARGS"

test: setup ## run the tests
	@$(BIN)/python -m pytest

screenshots: setup ## draw the pictures of the button, its form and its runs into docs/pictures (needs Chromium)
	@$(BIN)/python -m tests.browser.screenshots docs/pictures

lint: setup ## ruff, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## measure every claim of docs/benchmarks.md (four hours; REAL_DATA=folder for the real exports; a cluster as for test-cluster)
	@for name in evaluation object_store annotation_speed bridge_load hostile_input coverage_fuzz prepare prepare_faults rewrite_paths first_run process_endings; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done
	@for options in "--family detr" "--family detr --size 256x320" "--family deformable-detr" "--family rf-detr" "--family d-fine" "--family rf-detr --predict" "--family d-fine --predict"; do echo "== train_step $$options"; OMP_WAIT_POLICY=passive $(BIN)/python -m benchmarks.train_step $$options || exit 1; done
	@echo "== gpu.sh"; benchmarks/gpu.sh || [ $$? = 2 ]
	@if [ -n "$$REAL_DATA" ]; then for name in real_export sparse_photographs from_scratch transfer annotator_effort; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done; else echo "REAL_DATA is not set: real_export, sparse_photographs, from_scratch, transfer and annotator_effort are left out"; fi
	@for name in cluster_pull cluster_latency; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

lock: ## renew requirements/*.txt from pyproject.toml (no addresses are written)
	@cd requirements && for name in bootstrap build cpu-steps cvat-bridge detr-job dev; do \
	  case $$name in bootstrap|build) source="$$name.in";; dev) source="../pyproject.toml --all-extras";; cpu-steps) source="../pyproject.toml --extra cpu-steps --extra client";; *) source="../pyproject.toml --extra $$name";; esac; \
	  UV_NO_CONFIG=1 ../$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate $$source -o $$name.txt; \
	done

# The images. What a closed network needs (a mirror of the base image, an index, a proxy) comes from the command line and
# is written nowhere: docs/images.md.
IMAGES := cpu-steps cvat-bridge detr-job
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
TAG ?= $(VERSION)
REGISTRY ?=
BASE_IMAGE ?=
SOURCE ?=
CREATED ?=
BUILD_FLAGS ?=
DOCKER ?= docker
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)$(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo -dirty)
IMAGE_PREFIX := $(if $(REGISTRY),$(REGISTRY:/=)/)detr-workflows

ifneq ($(findstring BASE_IMAGE=,$(BUILD_FLAGS)),)
$(error give the base image as BASE_IMAGE=…, not in BUILD_FLAGS: the labels name it)
endif

images: ## build the images [REGISTRY=…] [TAG=…] [BASE_IMAGE=…] [BUILD_FLAGS="--build-arg INDEX_URL=…"]
	@set -e; for name in $(IMAGES); do \
	  echo "== $(IMAGE_PREFIX)/$$name:$(TAG)"; \
	  base="$(BASE_IMAGE)"; test -n "$$base" || base=$$(sed -n 's/^ARG BASE_IMAGE=//p' images/$$name/Dockerfile); \
	  base=$$(DOCKER="$(DOCKER)" sh images/resolve-base.sh "$$base" $(filter --pull,$(BUILD_FLAGS))); \
	  read -r from base_name digest <<<"$$base"; \
	  DOCKER_BUILDKIT=1 $(DOCKER) build --file images/$$name/Dockerfile --tag "$(IMAGE_PREFIX)/$$name:$(TAG)" \
	    --build-arg "VERSION=$(VERSION)" --build-arg "CODE_REVISION=$(REVISION)" --build-arg "SOURCE=$(SOURCE)" \
	    --build-arg "BASE_IMAGE=$$from" --label "org.opencontainers.image.base.name=$$base_name" \
	    --label "org.opencontainers.image.base.digest=$$digest" \
	    $(if $(CREATED),--label "org.opencontainers.image.created=$(CREATED)") $(BUILD_FLAGS) .; \
	done

push: ## build the images and push them to REGISTRY=…
	@test -n "$(REGISTRY)" || { echo "REGISTRY is not set: make push REGISTRY=registry.example.org/team" >&2; exit 2; }
	@$(MAKE) --no-print-directory images
	@set -e; for name in $(IMAGES); do $(DOCKER) push --quiet "$(IMAGE_PREFIX)/$$name:$(TAG)"; done

# A tag of its own for each call: nodes keep an image by its tag, and would run yesterday's.
test-cluster: setup ## build and push the images, and run the tests on a real cluster (tests/cluster/README.md)
	@test -n "$$CLUSTER_REGISTRY" || { echo "CLUSTER_REGISTRY is not set; tests/cluster/README.md lists what these tests need" >&2; exit 2; }
	@set -e; tag=test-$$(date +%s); \
	  $(MAKE) --no-print-directory push REGISTRY="$$CLUSTER_REGISTRY" TAG="$$tag" BASE_IMAGE="$$CLUSTER_BASE_IMAGE"; \
	  IMAGES_REGISTRY="$$CLUSTER_REGISTRY" IMAGES_TAG="$$tag" $(BIN)/python -m pytest -m "" tests/images tests/charts; \
	  CLUSTER_IMAGE_TAG="$$tag" $(BIN)/python -m pytest -m cluster tests/cluster -n 0 --durations=15

.PHONY: help setup test screenshots lint lock run bench images push test-cluster
