"""Tests that break things on purpose: processes, connections, locks, stored bytes."""
