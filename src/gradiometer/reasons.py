"""Reasons for missing quantities that the diagnosis understands; a recorder gives them."""

# of the quantities of a layer's gradient as the optimiser was given it
CLEARED = "its gradient was cleared before the optimizer's step, which therefore had none"
NOT_UPDATED = "the optimizer that made the step does not update it"
NOT_CLEARED = "the optimizer does not update it, and gradients of earlier steps were not cleared"
