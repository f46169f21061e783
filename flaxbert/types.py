"""Types that all layers share."""

from collections.abc import Mapping
from typing import Any

from jax import Array

Metrics = dict[str, float]

Prediction = dict[str, Any]

DeviceBatch = Mapping[str, Array]

Losses = dict[str, tuple[Array, Array]]

Params = dict[str, Any]
