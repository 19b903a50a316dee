from __future__ import annotations

import pytest

from storage.errors import QuotaError
from storage.quota import Quota, cost, topped_up


def test_a_reservation_is_topped_up_to_what_is_needed_and_never_twice():
    quota = Quota(10_000)
    assert topped_up(None, 0, quota.reserve) is None
    first = topped_up(None, 1_000, quota.reserve)
    assert first is not None
    assert quota.usage().reserved == first.remaining == cost(1_000)
    assert topped_up(first, 1_000, quota.reserve) is first
    more = topped_up(first, 3_000, quota.reserve)
    assert more is not None
    assert first.remaining == 0
    assert quota.usage().reserved == more.remaining >= 3_000
    with pytest.raises(QuotaError):
        topped_up(more, 20_000, quota.reserve)
    more.release()
    first.release()
    assert quota.usage().reserved == 0
