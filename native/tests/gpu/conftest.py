"""Lets a failed assertion of the shared promises say what its values were."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("native.tests.shared.promises")
