"""What tests of the matrix units' level share."""

import pytest

from fastnn import _core

needs_amx = pytest.mark.skipif(
    "amx" not in _core.available_isas(),
    reason="no AMX here, or the system refuses it; a build with FASTNN_AVX512=emulated needs AVX2 only")
