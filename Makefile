# Every target sets up what it needs, once, in a virtual environment of its own, from locked requirements.
# `make serve` never installs torch; `make test`, `make lint` and `make types` share .venv, which has everything.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first of these that is a Python 3.11; `make PYTHON=/path/to/python` overrules.
ifeq ($(origin PYTHON), undefined)
PYTHON = $(shell for name in python3.11 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
endif
IS_PYTHON_3_11 = $(shell $(PYTHON) -c 'import sys; print(sys.version_info[:2] == (3, 11))' 2>/dev/null)
HAS_VENV = $(shell $(PYTHON) -c 'import ensurepip, venv; print(True)' 2>/dev/null)
define check_python
$(if $(PYTHON),,$(error Python 3.11 was not found: install it and run make again, or name it with 'make PYTHON=/path/to/python3.11'))
$(if $(filter True,$(IS_PYTHON_3_11)),,$(error $(PYTHON) is not Python 3.11: name one that is with 'make PYTHON=/path/to/python3.11'))
$(if $(filter True,$(HAS_VENV)),,$(error $(PYTHON) lacks the venv module: install it ('apt install python3.11-venv' on Debian and Ubuntu) and run make again))
endef

# $(call make_environment,FOLDER,WHAT IT IS FOR)
define make_environment
$(strip $(check_python))
@echo "Setting up $(1) $(2); only the first time, and when its lock changes."
@$(PYTHON) -m venv --clear $(1)
@$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes --requirement $<
@$(1)/bin/python -m compileall -qq -j 0 $(1)/lib || true  # on every core; some packages ship templates that are no Python
@touch $@
endef

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.venv-serve/ready: requirements/serve.txt
	$(call make_environment,.venv-serve,to serve (about 125 MB to download))

.venv-test-service/ready: requirements/test-service.txt
	$(call make_environment,.venv-test-service,to test the service (about 165 MB to download))

.venv/ready: requirements/dev.txt
	$(call make_environment,.venv,to develop (about 3.2 GB to download: torch brings CUDA))

.venv-ray/ready: requirements/ray.txt
	$(call make_environment,.venv-ray,for Ray (about 220 MB to download))

.PHONY: serve
serve: .venv-serve/ready ## serve the shipped model on http://localhost:8080 (no torch)
	@exec .venv-serve/bin/python -m service serve

.PHONY: test
test: .venv/ready ## run every test, torch included
	@.venv/bin/python -m pytest

.PHONY: test-service
test-service: .venv-test-service/ready ## run the tests that need no torch
	@.venv-test-service/bin/python -m pytest

.PHONY: test-browser
test-browser: .venv/ready ## look at the page in Chromium (apt install chromium); SCREENSHOTS=folder keeps pictures
	@BROWSER_SLOW=1 .venv/bin/python -m pytest tests/browser

.PHONY: test-cifar10
test-cifar10: .venv/ready ## post CIFAR-10's 10,000 test images to the service (CIFAR10=folder that holds the data)
	@CIFAR10="$(CIFAR10)" .venv/bin/python -m pytest -s tests/test_cifar10_served.py

.PHONY: test-faults
test-faults: .venv/ready ## every fault for long, workers killed for five minutes (FAULT_SECONDS=300)
	@FAULT_SECONDS=$(or $(FAULT_SECONDS),300) .venv/bin/python -m pytest -s tests/faults

.PHONY: test-ray
test-ray: .venv/ready .venv-ray/ready ## kill one of two workers of a local Ray cluster half-way through a batch
	@RAY=$(CURDIR)/.venv-ray/bin .venv/bin/python -m pytest -s tests/deploy/test_ray_cluster.py

.PHONY: soak
soak: .venv/ready ## send 100,000 requests and watch memory, descriptors and threads (OUT=file keeps the samples)
	@.venv/bin/python -m bench.soak $(if $(OUT),--out $(OUT))

.PHONY: overload
overload: .venv/ready ## offer twice and ten times the capacity (REPOSITORY=folder MODEL=name OUT=file)
	@.venv/bin/python -m bench.overload --repository $(or $(REPOSITORY),models/zoo) --model $(or $(MODEL),cifar10) \
		$(if $(OUT),--out $(OUT))

.PHONY: test-schema
test-schema: .venv/ready ## try 10,000 made-up requests against the OpenAPI document
	@.venv/bin/python -m tests.service.protocols.fuzz

.PHONY: trial-kills
trial-kills: .venv/ready ## kill -9 the whole service 50 times within a job of 10,000 images
	@.venv/bin/python -m tests.service.jobs.trials kills

.PHONY: trial-memory
trial-memory: .venv/ready ## measure every process while 10,000 images are answered in one batch
	@.venv/bin/python -m tests.service.jobs.trials memory

.PHONY: trial-swaps
trial-swaps: .venv/ready ## swap the served model 50 times under load, with rollbacks, and watch memory (SWAPS=50)
	@.venv/bin/python -m bench.swaps --swaps $(or $(SWAPS),50)

.PHONY: check-dashboard
check-dashboard: ## check the dashboard against Grafana's own types (npm needed)
	@deploy/grafana/check

.PHONY: lint
lint: .venv/ready ## check style, format and the laws between rooms
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -c 'from importlinter.cli import lint_imports_command as check; check()' --no-logo

.PHONY: format
format: .venv/ready ## let ruff mend style and format
	@.venv/bin/python -m ruff check --fix .
	@.venv/bin/python -m ruff format .

.PHONY: types
types: .venv/ready ## check types, tests included
	@.venv/bin/python -m mypy .

.PHONY: hostile
hostile: .venv/ready ## decode every file below FILES=folder, or post them to URL=http://... (tests/hostile)
	@.venv/bin/python -m tests.hostile $(FILES) $(if $(URL),--url $(URL))

.PHONY: proto
proto: .venv/ready ## generate service/pb from proto/*.proto
	@.venv/bin/python proto/generate.py

COMPILE = .venv/bin/python -m uv pip compile --quiet --python-version 3.11 --python-platform linux \
	--generate-hashes --no-header $(UPGRADE)
.PHONY: lock
lock: .venv/ready ## lock requirements/*.txt anew (UPGRADE=--upgrade takes newer versions)
	@$(COMPILE) pyproject.toml --extra dev --output-file requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra serve --constraint requirements/dev.txt --output-file requirements/serve.txt
	@$(COMPILE) pyproject.toml --extra serve --extra test --constraint requirements/dev.txt \
		--output-file requirements/test-service.txt
	@$(COMPILE) pyproject.toml --extra serve --extra gpu --constraint requirements/dev.txt --output-file requirements/gpu.txt
	@$(COMPILE) pyproject.toml --extra ray --constraint requirements/dev.txt --output-file requirements/ray.txt
	@$(COMPILE) requirements/build.in --constraint requirements/dev.txt --output-file requirements/build.txt

.PHONY: clean
clean: ## remove the virtual environments and caches
	rm -rf .venv .venv-serve .venv-test-service .venv-ray .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
