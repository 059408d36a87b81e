"""One-file HTML reports: no network, figures embedded, fit for print and for screen readers.

`page` makes the frame that all reports share; each kind of report has a module of its own.
"""
