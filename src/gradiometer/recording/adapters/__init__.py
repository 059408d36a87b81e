"""One package for each framework: where it keeps weights, gradients, deltas and activations.

A new framework takes these steps:

1. Derive a class from `recorder.Training`: how steps are seen, and when each ends. What it changes
   for that it puts back: `restore.replace`, `restore.same_streams`.
2. In the first step, call `session.begin` with a `LayerInfo` for each layer. Find the activation
   function's name with `functions.function`.
3. Ask `session.wants(number)` whether a step is recorded, and fetch the arrays in `session.arrays`
   (`gradiometer.quantities` says what they are), no others.
4. Make a `LayerArrays` of each call of a layer with `calls.call_arrays`, and one of all calls with
   `calls.joined_calls`. At the end of a step hand those of all layers to `assembly.add_arrays`. If
   each array is measured as soon as it is seen, `put` the parts into an `Assembly` instead.
5. Say with `session.miss` why something cannot be had.
6. Count your own time: `with session.timed:`.

Then `TrainingRecorder(session, training)` is the recorder. Add the framework to
`tests/gradiometer/recording/test_one_definition.py`, which compares all of them.
"""
