# Everything a newcomer needs: make demo, make test, make lint. Each target makes the environment it needs.
PYTHON ?= python3
BASE := .venv/base
DEV := .venv/dev

.PHONY: demo test test-long lint proto proto-release clean

demo: $(BASE)/installed
	$(BASE)/bin/mgrl demo

test: $(DEV)/installed
	$(DEV)/bin/python -m pytest

# The tests that take minutes each: hundreds of kills, tens of thousands of random messages.
test-long: $(DEV)/installed
	$(DEV)/bin/python -m pytest -m long

lint: $(DEV)/installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/python proto/generate.py --lint
	$(DEV)/bin/hadolint Dockerfile

# Writes the stubs beside the .proto files.
proto: $(DEV)/installed
	$(DEV)/bin/python proto/generate.py

# Keeps the contract as it is: from then on `make lint` fails where its clients would not understand a newer one.
proto-release: $(DEV)/installed
	$(DEV)/bin/python proto/generate.py --release

# Serving alone: no torch.
$(BASE)/installed: pyproject.toml
	$(PYTHON) -m venv $(BASE)
	$(BASE)/bin/python -m pip install --quiet --editable .
	touch $@

# torch and torchvision must be of one build; the rest follows from pyproject.toml.
$(DEV)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1
	$(DEV)/bin/python -m pip install --quiet --editable ".[train,dev]"
	touch $@

clean:
	rm -rf .venv build dist demo
