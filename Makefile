# `make help` lists the targets. `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench proof messages tiny-chat clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.ready ## rename the bundled model to 黄大力 and show the proof (a minute or two)
	$(BIN)/whoamai rename --name 黄大力 --author 力量工作室 --out work_dirs/demo --merge --overwrite

test: $(VENV)/.ready-dev ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.ready-dev ## ruff, pyright and the message catalogue
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python tools/messages.py --check

format: $(VENV)/.ready-dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready-dev ## how each setting of `rename` moves the scores (about 20 minutes)
	$(BIN)/python benchmarks/rename_settings.py

proof: $(VENV)/.ready-dev ## ten names, three seeds: what renaming reaches (about an hour on two cores)
	$(BIN)/python benchmarks/proof.py

messages: $(VENV)/.ready-dev ## collect and compile what people read (after changing a text)
	$(BIN)/python tools/messages.py

clean: ## remove the virtual environment and the results
	rm -rf $(VENV) work_dirs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "whoamai needs Python 3.11 or newer; call make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
