"""Benchmarks are run by hand; that they still fit the program is seen here."""

import importlib
import pkgutil

import pytest

import benchmarks


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__)])
def test_a_benchmark_can_be_started(name):
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name in ("algotom", "matplotlib", "simpy"):
            pytest.skip(f"{error.name} is not installed (pip install ctmar[bench])")
        raise
    assert callable(getattr(module, "main", None)) or name in ("machine", "processes")
