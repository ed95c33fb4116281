PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint format clean

run: .venv/app.stamp
	$(BIN)/streamlit run app.py

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache tests/screenshots

.venv/app.stamp: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

.venv/dev.stamp: .venv/app.stamp requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	@touch $@
