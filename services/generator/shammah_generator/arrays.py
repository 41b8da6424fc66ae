"""Short names for the numpy types that the other modules pass around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array whose element type the docstring of its function tells."""

Floats = NDArray[np.float32]
"""An array of float32."""
