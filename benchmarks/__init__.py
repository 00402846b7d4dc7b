"""Measures the service against a bare statement and other session stores. See docs/benchmarks.md."""
