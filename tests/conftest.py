"""Fixtures that every test may use; each kind has a module of its own."""

import signal

from hypothesis import settings

# A machine that does other work, too, is slow now and then; that is no mistake of what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell that starts the run in the background has it ignore ctrl-C, and what it starts inherits that;
# tests send ctrl-C to themselves and to others.
signal.signal(signal.SIGINT, signal.default_int_handler)
# And a run that is told to stop, stops what it started.
signal.signal(signal.SIGTERM, signal.default_int_handler)

# In the order of their imports: pytest rewrites the asserts of a module only before it is imported.
pytest_plugins = [
    "tests.fixtures.cleanliness",
    "tests.fixtures.figures",
    "tests.fixtures.postgres",
    "tests.fixtures.servers",
    "tests.fixtures.tools",
    "tests.fixtures.shared_server",
    "tests.fixtures.agents",
    "tests.fixtures.lister",
]
