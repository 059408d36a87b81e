"""Programs: a captured graph as readable NumPy source, and replayed at full speed.

capture.py   runs a function once, and keeps the graph of its value and gradients
graph.py     that graph as values, simplified
notation.py  how each primitive is written in NumPy
source.py    the values as a page to read
replay.py    the values computed into buffers that are made once
training.py  the training loop on top of it
"""

from dp.program.program import Program, capture

__all__ = ["Program", "capture"]
