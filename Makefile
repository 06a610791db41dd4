# Two commands: `make repro` (set up, then the whole pipeline) and `make test` (set up, then the tests).

PYTHON ?= python3
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
BIN := .venv/bin
# Threads that wait spin shortly, then sleep: spinning long stalls two busy processes, sleeping at once costs a third of the speed.
export GOMP_SPINCOUNT := 20000
# DVC's shared cache stays with the user.
export DVC_SITE_CACHE_DIR := $(CURDIR)/.dvc/tmp/site
export DVC_NO_ANALYTICS := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help repro test test-slow verify pull heal lint setup clean plan dag deps current experiments

help:  ## Show this help
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

repro: setup heal data  ## Set up, fetch the data, run every stage that is not up to date, print the results
	@babelcart check
	dvc repro
	@babelcart results
	@for page in reports/*.html; do echo "Open $$page in a browser: the charts and every test row"; done

heal: setup  ## Put right what a kill or a bad disk left of dvc.lock, of DVC's locks and of its cache
	@babelcart heal

plan: setup  ## Say what training and scoring will cost, here and on GPU="h100 l4"
	@babelcart plan $(addprefix --gpu ,$(GPU))

ONLY ?= sample
experiments: setup data  ## The paper's table: what each augmentation adds. ONLY="sample real", MODELS="gemma3-12b qwen25-14b"
	@babelcart experiments experiments/paper.yaml $(addprefix --only ,$(ONLY)) $(addprefix --model ,$(MODELS))

current: setup  ## Fail if dvc.lock is behind the code, the settings or the data; needs neither data nor cache
	@babelcart current

test: setup  ## Set up, lint and run the tests
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile

test-slow: setup  ## Run the tests that make test leaves out: minutes each
	python -m pytest -m slow

pull: setup  ## Fetch what others pushed; contents and listings are checked before they are used
	@babelcart pull

verify: setup  ## Check what was pulled, the remote, and that git holds no secrets
	@babelcart verify

setup: $(BIN)/.installed  ## Make .venv with the locked packages; a second call installs nothing

data: setup
	@dvc status --quiet data.dvc 2>/dev/null || babelcart pull data.dvc

lint: setup  ## Format and lint
	ruff format .
	ruff check --fix .
	mypy

# torch first, since its build depends on the machine: the default wheel where there is an NVIDIA driver or none is needed (macOS),
# a CPU wheel elsewhere. uv knows where those are; pip is asked first, for machines that have one at hand.
$(BIN)/.installed: constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@if $(BIN)/python -c 'from importlib.metadata import version; import sys; sys.exit(version("torch").split("+")[0] != "$(TORCH)")' 2>/dev/null; then :; \
	elif nvidia-smi >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ] || \
	  $(BIN)/pip install --dry-run --quiet --no-deps --report - torch==$(TORCH) 2>/dev/null | grep -q '"version": "$(TORCH)+cpu"'; \
	then $(BIN)/pip install --quiet -c constraints.txt torch==$(TORCH); \
	else $(BIN)/pip install --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu torch==$(TORCH); fi
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
# DVC keeps pickles in its cache, by default in /var/tmp, and makes folders that all may write in: this one is closed before it does, and used without make too.
	@install -d -m 700 $(DVC_SITE_CACHE_DIR) && dvc config --local core.site_cache_dir $(DVC_SITE_CACHE_DIR)
	@touch $@

deps: setup  ## Write the code that each stage imports into the lists in dvc.yaml
	@babelcart deps

dag: setup  ## Draw the graph into docs/dag.svg (needs graphviz)
	dvc dag --dot | tred | dot -Tsvg -Grankdir=LR -Nshape=box -Nstyle=rounded,filled -Nheight=0.35 -Nfillcolor='#eef3fb' -Ncolor='#5b7aa8' \
	  -Nfontname=Helvetica,sans-Serif -Nfontsize=12 -Ecolor='#8895a8' -Earrowsize=0.7 -Gnodesep=0.15 -Granksep=0.35 > docs/dag.svg

clean:  ## Remove the environment and scratch files; results and data stay
	rm -rf .venv .scratch
