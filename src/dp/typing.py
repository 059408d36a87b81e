"""Types that annotations share."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array of NumPy, of any shape and dtype: what it holds is checked when it is used."""
