"""Version of vop_mm and supported Python versions; the build and ``tools/_env.sh`` read it without the package."""

__version__ = '0.1.0'

# Tested versions, from the first (inclusive) to the second (exclusive).
PYTHON_RANGE = ((3, 10), (3, 14))
