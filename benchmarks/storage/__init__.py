"""Benchmarks of the data path; benchmarks/storage/run.py runs them all."""
