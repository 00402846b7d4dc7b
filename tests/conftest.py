"""Fixtures that every test may use; each kind has a module of its own."""

pytest_plugins = [
    "tests.fixtures.cleanliness",
    "tests.fixtures.postgres",
    "tests.fixtures.servers",
    "tests.fixtures.shared_server",
    "tests.fixtures.tools",
]
