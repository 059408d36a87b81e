"""Programs: a captured graph as readable NumPy source, and replayed at full speed.

capture.py   runs a function twice, and keeps the graph of its value and gradients
graph.py     that graph as values, simplified
notation.py  how each primitive is written in NumPy
source.py    the values as a page to read
blocks.py    the parameters in one vector, weights and biases put together …
steps.py     … the operations on them …
merging.py   … of which those of several layers are done at once …
memory.py    … in buffers that are made once …
products.py  … matrix products as BLAS does them best …
replay.py    … and written out as the fast form
program.py   what a user holds: capture and Program
arrays.py    where a compiled step keeps its numbers, for callbacks
step.py      one training step
loop.py      the training loop on top of it
"""
