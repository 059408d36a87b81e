"""One-file HTML reports: no network, figures embedded, fit for print and for screen readers.

`page` has the frame, which every report shares; each kind of report has a room of its own.
"""
