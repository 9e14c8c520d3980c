"""Measuring programs: `python -m bench.throughput`, `bench.replay`, `bench.crash`. What they measure and how: docs/benchmarks.md."""
