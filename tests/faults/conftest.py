"""Servers of these tests run at full speed."""

import pytest

from tests.fixtures.servers import ServerFactory


@pytest.fixture
def server(unmeasured_server: ServerFactory) -> ServerFactory:
    return unmeasured_server
