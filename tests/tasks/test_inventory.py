"""What lies in the cache, who made and used it."""

from datetime import UTC, datetime

import pytest

from tasks import inventory, origins, pruning
from tests.tasks.small_cache import DAY, NOW, make, report

pytestmark = pytest.mark.usefixtures("root")


def test_an_empty_cache_is_nothing_to_any_of_them(root):
    assert inventory.entries() == []
    assert inventory.verify() == []
    assert pruning.prune(max_size=0) == []
    assert origins.adopt() == []
    assert not root.exists()


def test_the_inventory_says_what_how_much_how_old_by_and_for_whom():
    raw = make("raw", "raw", days=3)
    model = make("models", "model", days=1, size=500)
    older, newer = report(3, raw), report(1, raw, model)
    one, two = (entry.row() for entry in inventory.entries())
    assert one["artifact"] == raw.name
    assert one["size"] == 1000
    assert one["made_by"] == ["download"]
    assert one["used_by"] == [older, newer]
    assert one["used"] == f"{datetime.fromtimestamp(NOW - 3 * DAY, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert two["artifact"] == model.name
    assert two["size"] == 500
    assert two["used_by"] == [newer]
