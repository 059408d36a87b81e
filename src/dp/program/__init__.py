"""Programs: a captured graph as readable NumPy source, and replayed at full speed.

What users hold
    program.py   capture and Program
    step.py      TrainingStep: one step of an optimiser
    update.py    the update of all parameters at once
    loop.py      the training loop
    arrays.py    where a compiled step keeps its numbers, for callbacks
    models.py    which models can be compiled
    calls.py     what a program may be called with
Running what is captured
    runs.py      runs a function on several batches, and refuses what a program could not repeat
    reads.py     sees who looks at a Node's numbers meanwhile
    guards.py    what the function depends on besides, and whether it has changed
The compiler
    pipeline.py  the passes, one line each: read this first
    capture.py   the graph of a function's value and gradients
    layout.py lower.py merge.py buffers.py emit.py
    graph.py     values, in their simplest form
    notation.py  how each primitive is written in NumPy
    products.py  how BLAS is asked for a matrix product
    tables.py    where a batch lies
    source.py    the graph as a page to read
"""
