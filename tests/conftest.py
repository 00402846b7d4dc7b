"""Fixtures that every test may use; each kind has a module of its own."""

# In the order of their imports: pytest rewrites the asserts of a module only before it is imported.
pytest_plugins = [
    "tests.fixtures.cleanliness",
    "tests.fixtures.postgres",
    "tests.fixtures.servers",
    "tests.fixtures.tools",
    "tests.fixtures.shared_server",
    "tests.fixtures.agents",
    "tests.fixtures.lister",
]
