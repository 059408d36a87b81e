"""Tests; what several of them share is imported by its place, as in `tests.dp.cases`."""
