"""What may be chosen is checked where it is chosen, and a refusal says what would do."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ccfexp.errors import ConfigError
from strategies.options import CombineOptions, ServerOptimiser


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trim": 0.0}, r"trim=0.0 must lie between 0 and 0.5; 0.2"),
        ({"trim": 0.5}, r"trim=0.5 must lie between 0 and 0.5"),
        ({"trim": math.nan}, r"trim=nan must lie between"),
        ({"norm_filter": 0.5}, r"norm_filter=0.5 must be 0 \(off\) or 1 to 1000; 3 is a good choice"),
        ({"norm_filter": math.inf}, r"norm_filter=inf must be"),
        ({"norm_filter": math.nan}, r"norm_filter=nan must be"),
    ],
)
def test_combining_is_bounded(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CombineOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "momentum", "rate": 0.0}, r"rate=0.0 must be finite and above 0"),
        ({"kind": "adam", "floor": math.inf}, r"floor=inf must be finite and above 0"),
        ({"kind": "momentum", "momentum": 1.0}, r"momentum=1.0 must be at least 0 and below 1"),
        ({"kind": "adam", "second": math.nan}, r"second=nan must be at least 0 and below 1"),
        ({"kind": "adam"}, r"rate=1.0 of kind=adam must be at most 0.1; 0.001 is a good choice"),
        ({"rate": 0.5}, r"rate=0.5 changes nothing with kind=plain; leave it at 1 or choose momentum"),
    ],
)
def test_a_step_is_bounded(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerOptimiser(**values)


def test_only_the_plain_mean_needs_no_other_update() -> None:
    assert not CombineOptions().needs_all
    assert not CombineOptions(residual=True).needs_all
    assert CombineOptions(centre="median").needs_all
    assert CombineOptions(centre="trimmed_mean").needs_all
    assert CombineOptions(norm_filter=3.0).needs_all
