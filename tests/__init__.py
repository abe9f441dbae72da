"""The tests, and what they share: that asserts too, and says as much when it fails."""

import pytest

pytest.register_assert_rewrite(
    *(f"tests.{room}" for room in ("app", "atlas", "browser", "core", "precompute", "reference"))
)
