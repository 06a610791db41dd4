# `make repro` installs everything and runs the pipeline; `make test` installs everything and runs the tests.

# Characters that a virtual environment, setuptools or DVC does not accept in the path of a folder. Spaces and all others are accepted.
define newline


endef
REFUSED := $(strip $(foreach c,: $$ ` " \ { },$(findstring $(c),$(CURDIR))) $(if $(findstring $(newline),$(CURDIR)),line-break))
$(if $(REFUSED),$(error the path of this folder contains $(REFUSED), which a virtual environment or DVC does not accept: rename the folder))

PYTHON ?= python3
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
BIN := .venv/bin
# Optional dependencies to install in addition to those of dev: some, as in EXTRAS="encoders neural", or EXTRAS=all.
EXTRAS ?=
KNOWN := $(shell sed -n '/^\[project.optional-dependencies\]/,/^\[tool/s/^\([a-z0-9-]*\) = .*/\1/p' pyproject.toml)
UNKNOWN := $(filter-out all $(KNOWN),$(EXTRAS))
$(if $(UNKNOWN),$(error EXTRAS contains $(UNKNOWN); accepted: all, or some of $(KNOWN)))
space := $() $()
comma := ,
INSTALL := $(subst $(space),$(comma),$(sort dev $(if $(filter all,$(EXTRAS)),$(KNOWN),$(EXTRAS))))
# Waiting OpenMP threads spin briefly, then sleep. Longer spinning stalls two busy processes; sleeping at once costs a third of the speed.
export GOMP_SPINCOUNT := 20000
# Keep DVC's site cache, which contains pickles, private to the user (docs/security.md).
export DVC_SITE_CACHE_DIR := $(CURDIR)/.dvc/tmp/site
export DVC_NO_ANALYTICS := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Commands run as modules: pip writes the path of .venv into the first line of its scripts, such as .venv/bin/dvc, and with some characters
# in the path they do not start.
RUN := $(BIN)/python -m

.PHONY: help repro test test-slow verify pull heal lint setup clean plan dag deps current experiments tutorial

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

repro: setup heal data  ## Install, download the data, run every outdated stage, print the results
	@$(RUN) babelcart check
	$(RUN) dvc repro
	@$(RUN) babelcart results
	@for page in reports/*.html; do echo "Open $$page in a browser: the charts and every test row"; done

heal: setup  ## Repair dvc.lock, DVC's locks and its cache after a kill or a disk failure
	@$(RUN) babelcart heal

plan: setup  ## Estimate memory and time of training and scoring, here and on GPU="h100 l4"
	@$(RUN) babelcart plan $(addprefix --gpu ,$(GPU))

ONLY ?= sample
# As it is, in quotes of the shell: the path of a folder may contain any character.
override export DATA := $(value DATA)
experiments: setup data  ## Measure the gain of each augmentation, as in the paper. ONLY="sample real", MODELS="gemma3-12b qwen25-14b", DATA=FOLDER
	@$(RUN) babelcart experiments experiments/paper.yaml $(addprefix --only ,$(ONLY)) $(addprefix --model ,$(MODELS)) $${DATA:+--data "$$DATA"}

current: setup  ## Fail if dvc.lock is out of date with code, settings or data; needs neither data nor cache
	@$(RUN) babelcart current

test: setup  ## Install, lint and run the tests
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses 2 --dist loadfile

test-slow: setup  ## Run the slow tests, which `make test` skips; each takes minutes
	$(RUN) pytest -m slow

pull: setup  ## Download what others pushed, and verify it before it is used
	@$(RUN) babelcart pull

verify: setup  ## Verify the cache, the workspace and the remote, and scan git for secrets
	@$(RUN) babelcart verify

setup: $(BIN)/.installed-$(INSTALL)  ## Create .venv with the locked packages; a second call installs nothing. EXTRAS="encoders neural" adds optional ones

data: setup
	@$(RUN) dvc status --quiet data.dvc 2>/dev/null || $(RUN) babelcart pull data.dvc

lint: setup  ## Format and lint
	$(RUN) ruff format .
	$(RUN) ruff check --fix .
	$(RUN) mypy

# torch is installed first, because its build depends on the machine: the default wheel with an NVIDIA driver and on macOS, a CPU wheel
# elsewhere. pip is tried first, for machines whose package index has the CPU wheel; otherwise uv, which knows where CPU wheels are.
$(BIN)/.installed-$(INSTALL): constraints.txt pyproject.toml
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@if $(BIN)/python -c 'from importlib.metadata import version; import sys; sys.exit(version("torch").split("+")[0] != "$(TORCH)")' 2>/dev/null; then :; \
	elif nvidia-smi >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ] || \
	  $(RUN) pip install --dry-run --quiet --no-deps --report - torch==$(TORCH) 2>/dev/null | grep -q '"version": "$(TORCH)+cpu"'; \
	then $(RUN) pip install --quiet -c constraints.txt torch==$(TORCH); \
	else $(RUN) pip install --quiet uv && $(RUN) uv pip install --quiet --python $(BIN)/python --torch-backend cpu torch==$(TORCH); fi
	$(RUN) pip install --quiet -c constraints.txt -e '.[$(INSTALL)]'
# By default, DVC's site cache is in /var/tmp and writable for every user. Create a private one, and set it for `dvc` outside of make too.
# DVC writes only ASCII to its configuration.
	@install -d -m 700 "$$DVC_SITE_CACHE_DIR"
	@if printf %s "$$DVC_SITE_CACHE_DIR" | LC_ALL=C grep -q '[^ -~]'; \
	then echo "Before you use dvc without make: export DVC_SITE_CACHE_DIR='$$DVC_SITE_CACHE_DIR'"; \
	else $(RUN) dvc config --local core.site_cache_dir "$$DVC_SITE_CACHE_DIR"; fi
	@touch $@

tutorial:  ## Run the notebook docs/tutorial.ipynb anew and store its outputs; minutes. Installs the packages of EXTRAS=notebook
	@$(MAKE) --no-print-directory setup EXTRAS="$(sort notebook $(EXTRAS))"
	$(BIN)/python benchmarks/tutorial.py docs/tutorial.ipynb

deps: setup  ## Write the modules that each stage imports to the dependency lists in dvc.yaml
	@$(RUN) babelcart deps

dag: setup  ## Draw the graph of the stages to docs/dag.svg (needs graphviz)
	$(RUN) dvc dag --dot | tred | dot -Tsvg -Grankdir=LR -Nshape=box -Nstyle=rounded,filled -Nheight=0.35 -Nfillcolor='#eef3fb' -Ncolor='#5b7aa8' \
	  -Nfontname=Helvetica,sans-Serif -Nfontsize=12 -Ecolor='#8895a8' -Earrowsize=0.7 -Gnodesep=0.15 -Granksep=0.35 > docs/dag.svg

clean:  ## Remove the environment and scratch files; results and data are kept
	rm -rf .venv .scratch
