"""The verbs, such as `run` and `plot`, as Python functions: a file for each, with its name.

`gradiometer.run` is the function `run` of `gradiometer.verbs.run`, and so on. The command line
calls these functions, and prints their events.

run.py          one experiment
predict.py      what will happen, before anything is trained
study.py        many experiments
prove.py        the textbook's statements, tested
diagnose.py     what is wrong with a net, where, and why
report.py       all there is to say of a run, or of a study, in one file
plot.py         one figure
activations.py  the gallery of activation functions
export.py       a trace for other tools

description.py  the experiment that a verb was given
run_folder.py   the folder of a run
output.py       files and folders that verbs write
"""
