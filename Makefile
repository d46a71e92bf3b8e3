# Sluice. `make` alone prints what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
EXTRA  ?= cpu

# Where torch's CPU build comes from, as options of uv. Default: the folder that pip is configured with
# (pip config get global.find-links), else PyTorch's own CPU index, which uv knows by the name `cpu`.
# A mirror inside your network: make TORCH_CPU="--find-links /srv/wheels" …
LINKS     := $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
TORCH_CPU ?= $(or $(addprefix --find-links=,$(LINKS)),--torch-backend=cpu)
# The package index pip is configured with, where it is; uv does not read pip's configuration.
INDEX     ?= $(addprefix --default-index=,$(or $(PIP_INDEX_URL),$(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)))

.PHONY: help demo test check prove bench up install quantization proto clean
help:
	@echo "make demo    set up, then run the main job: dataset -> training -> evaluation -> gate -> canary -> answer"
	@echo "             make demo DATA=my.jsonl  with your rows;  make demo BASE=/path/to/model  with your base model"
	@echo "make test    set up, then pass the landing tier (minutes)"
	@echo "make check   ruff, mypy, import-linter, buf lint and breaking"
	@echo "make prove   the long tier: storms, soaks, interleavings, figures"
	@echo "make bench   the figures alone"
	@echo "make up      the suite in the foreground; Ctrl-C stops all"
	@echo "make quantization  an environment of its own for the exports gptq and awq (.venv-quantization)"
	@echo "make proto   compile the contract again after a change in protos/"
	@echo "make clean   remove $(VENV), compiled contract and caches"
	@echo
	@echo "EXTRA=gpu installs for NVIDIA GPUs. TORCH_CPU says where torch's CPU build comes from: $(TORCH_CPU)"

install: $(VENV)/.installed
LOCK      := $(wildcard deploy/constraints-$(EXTRA).txt)
$(VENV)/.installed: pyproject.toml $(LOCK) $(wildcard protos/*.py) $(shell find protos -name '*.proto')
	@test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q --disable-pip-version-check uv; }
	@echo "installing into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(UV) pip install $$(test -t 2 || echo -q) $(INDEX) $(if $(filter cpu,$(EXTRA)),$(TORCH_CPU)) \
	  $(addprefix -c ,$(LOCK)) -e '.[$(EXTRA),dev]' || { \
	  echo "error: not all packages could be had. PIP_INDEX_URL names another index;" \
	    "for torch's CPU build: make install TORCH_CPU='--find-links /srv/wheels'" >&2; exit 1; }
	@touch $@

# llmcompressor wants other versions than the engines do, so it lies beside them, where the trainer looks for it.
QUANTIZATION := .venv-quantization
quantization: $(QUANTIZATION)/.installed
$(QUANTIZATION)/.installed: deploy/quantization.txt $(wildcard deploy/constraints-quantization-$(EXTRA).txt) | install
	@echo "installing into $(QUANTIZATION) …"
	@$(UV) venv -q --allow-existing -p $(BIN)/python $(QUANTIZATION)
	@VIRTUAL_ENV=$(QUANTIZATION) $(UV) pip install $$(test -t 2 || echo -q) --compile-bytecode $(INDEX) \
	  $(if $(filter cpu,$(EXTRA)),$(TORCH_CPU)) $(addprefix -c ,$(wildcard deploy/constraints-quantization-$(EXTRA).txt)) \
	  -r deploy/quantization.txt || { \
	  echo "error: not all packages could be had. PIP_INDEX_URL names another index;" \
	    "for torch's CPU build: make quantization TORCH_CPU='--find-links /srv/wheels'" >&2; exit 1; }
	@touch $@

proto: install
	@$(BIN)/python protos/generate.py

demo: install
	@$(BIN)/python -m examples.demo $(if $(DATA),--data '$(DATA)') $(if $(BASE),--base '$(BASE)')

test: check
	@$(BIN)/python -m tests

check: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/buf lint sluice/descriptors.binpb --config buf.yaml --path sluice
	@$(BIN)/python protos/breaking.py

prove: install quantization
	@VIRTUAL_ENV=$(VENV) $(UV) pip install -q $(INDEX) $(addprefix -c ,$(LOCK)) -e '.[ray,prove]'
	@$(BIN)/python -m tests --prove

bench: install
	@$(BIN)/python -m benchmarks

up: install
	@$(BIN)/sluice up

clean:
	rm -rf $(VENV) $(QUANTIZATION) buf sluice/*/v1 sluice/descriptors.binpb build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
