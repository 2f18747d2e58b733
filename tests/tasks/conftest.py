"""What the tests of the tasks share."""

from tests.classifier.sources.conftest import web  # noqa: F401 - a fixture
