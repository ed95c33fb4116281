PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test quantus lint format clean

run: .venv/app.stamp
	$(BIN)/streamlit run app.py

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

quantus: .venv-quantus/stamp

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-quantus .pytest_cache .mypy_cache .ruff_cache tests/screenshots

.venv/app.stamp: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

.venv/dev.stamp: .venv/app.stamp requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	@touch $@

# An oracle of the tests alone, in an environment of its own that borrows what .venv has.
.venv-quantus/stamp: .venv/dev.stamp tests/oracles/quantus-requirements.txt
	$(PYTHON) -m venv .venv-quantus
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		$$(.venv-quantus/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth
	.venv-quantus/bin/python -m pip install -r tests/oracles/quantus-requirements.txt
	@touch $@
