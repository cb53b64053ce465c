"""What may be said beside an update: other words for private rounds than for others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import MetricRecord

from ccfexp.errors import WireError
from strategies import wire
from tests.toys import BASE, initial

TERMS = wire.Terms(3, "fedit", 2, 4.0, "a" * 64, BASE)
PRIVATE = replace(TERMS, privacy='{"noise_multiplier":1.0}')


@pytest.mark.parametrize(("terms", "allowed"), [(TERMS, wire.PUBLIC_METRICS), (PRIVATE, wire.PRIVATE_METRICS)])
@pytest.mark.parametrize("name", sorted(wire.PUBLIC_METRICS | wire.PRIVATE_METRICS))
def test_a_private_update_has_metrics_of_its_own(terms: wire.Terms, allowed: frozenset[str], name: str) -> None:
    """No mean loss and no number of patients, for those are of the data; and an ordinary one claims no epsilon."""
    update = wire.AdapterUpdate.of(terms, initial(), 4.0, {name: 1.0})
    bounds = wire.UpdateBounds(wire.AdapterMessage.of(terms, initial(), "{}"), 1e6, 1e6)
    if name in allowed:
        assert wire.decode_update(wire.encode_update(update), bounds).metrics == {name: 1.0}
        return
    with pytest.raises(WireError, match="check 'metrics'"):
        wire.encode_update(update)
    records = wire.encode_update(replace(update, metrics={}))
    records["metrics"] = MetricRecord({name: 1.0})
    with pytest.raises(WireError, match="check 'metrics'"):
        wire.decode_update(records, bounds)
