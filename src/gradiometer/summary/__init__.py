"""What a trace says, in numbers and in a sentence."""

# numbers.py   the table of layers, and by how much a quantity falls
# chains.py    which layers may be compared
# sentence.py  the words

from gradiometer.summary.numbers import decades_lost, layer_table
from gradiometer.summary.sentence import REACHES_WITHIN_DECADES, sentence

__all__ = ["REACHES_WITHIN_DECADES", "decades_lost", "layer_table", "sentence"]
