import logging

import pytest
import structlog

from tests.protocols.exchange.conftest import patient_clock

__all__ = ["patient_clock"]


@pytest.fixture
def _quiet():
    """The nodes share this process's stdout with the command, which a log would spoil."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()
