"""Data sets × methods × label budgets × seeds from one configuration, resumable, with intervals and paired tests."""

from micropref.bench._config import load_suite
from micropref.bench._specs import DatasetSpec, MethodSpec, Suite
from micropref.bench._suite import SuiteResult, run_suite

__all__ = ["DatasetSpec", "MethodSpec", "Suite", "SuiteResult", "load_suite", "run_suite"]
