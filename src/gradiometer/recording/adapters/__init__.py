"""One package for each framework: where it keeps weights, gradients, deltas and activations.

A new framework takes one file:

1. Write a class with the methods of `recorder.Training`: how steps are seen, and when each ends.
2. In the first step, call `session.begin` with a `LayerInfo` for each layer. Find the activation
   function's name with `functions.function`.
3. Ask `session.wants(number)` whether a step is recorded, and fetch the arrays in `session.arrays`
   (`gradiometer.quantities` says what they are), no others.
4. At the end of a step fill a `LayerArrays` for each layer, and hand them to
   `assembly.add_arrays`. If each array is measured as soon as it is seen, `put` the parts into an
   `Assembly` instead.
5. Say with `session.miss` why something cannot be had.
6. Count your own time: `with session.timed:`.

Then `TrainingRecorder(session, training)` is the recorder. Add the framework to
`tests/gradiometer/recording/test_one_definition.py`, which compares all of them.
"""
