"""Measuring programs: `python -m bench.throughput` and `bench.replay`. What they measure and how: docs/benchmarks.md."""
