"""The thresholds by which a run is judged, each once."""

# The gradient "does not reach" the first layer if the delta there is below a thousandth of the
# output layer's, and "explodes" if it is above a thousand times it.
REACHES_WITHIN_DECADES = 3.0
ABOUT_THE_SAME = 0.05  # decades that are not told
MISLEADING_DECADES = 1.5  # by which dL/dW and the delta may differ in their fall
MOSTLY_DEAD = 0.5  # a share of a layer's units that is told
LEARNT = 0.9  # accuracy from which on a net counts as one that learns
