"""Operational HTTP: metrics, liveness and readiness."""
