# Everything that Make does is also a plain command; the README shows them.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db

.DEFAULT_GOAL := help
.PHONY: help run report notebooks docs ui test lint format lock bench bench-serve bench-soak bento clean package serve

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(BIN)/.installed ## run the pipeline (dvc repro) and print what came out
	@dvc repro
	@python -m pipeline.summary

ui: PORT ?= 5000
report: $(BIN)/.installed ## write a page about the last run, all in one file
	python -m pipeline.report

notebooks: $(BIN)/.installed ## run the notebooks and write each as a page into reports/
	jupyter nbconvert --execute --to html --output-dir reports --log-level ERROR \
		--HTMLExporter.mathjax_url= --HTMLExporter.require_js_url= notebooks/*.ipynb

docs: $(BIN)/.installed ## build the documentation in site/, with its links checked
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

ui: $(BIN)/.installed ## open the MLflow UI on http://127.0.0.1:5000 (PORT=5001: there)
	mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI) --host 127.0.0.1 --port $(PORT)

package: $(BIN)/.installed ## make the serving bundle of the champion in bundle/
	python -m pipeline.package

serve: PORT ?= 3000
serve: package ## serve the champion on http://127.0.0.1:3000 (PORT=3001: there)
	bentoml serve --host 127.0.0.1 --port $(PORT)

bento: package ## build a bento of the service
	bentoml build

test: $(BIN)/.installed ## run all tests
	pytest

lint: $(BIN)/.installed ## check style and types
	ruff check .
	ruff format --check .
	mypy

format: $(BIN)/.installed ## put the code into shape
	ruff check --fix .
	ruff format .

bench: $(BIN)/.installed ## measure the figures in the README again
	python -m bench.featurize

COMPILE = uv pip compile pyproject.toml --universal --fork-strategy fewest --generate-hashes \
	--python-version 3.11 --custom-compile-command 'make lock' --quiet

bench-serve: package ## measure the service against the ancestor's way
	python -m bench.serve

bench-soak: package ## three minutes at twice the capacity of the service
	python -m bench.soak

lock: $(BIN)/.installed ## resolve pyproject.toml into the two lock files
	$(COMPILE) --extra train --extra cpu --extra dev --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --output-file requirements-service.lock

clean: ## remove the environment and every output; your sounds stay
	rm -rf .venv site data features models reports bundle crossval/units mlruns mlflow.db* optuna.db* .dvc/cache .dvc/tmp

# The installer comes from the lock file too, checked against its hash.
$(BIN)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
		ok or sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into .venv: a minute or two, once"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --require-hashes -r requirements.lock
	@touch $@
