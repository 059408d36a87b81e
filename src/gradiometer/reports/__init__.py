"""One-file HTML reports: no network, figures embedded, fit for print and for screen readers.

page.py      the frame that all reports share
pictures.py  figures as part of the page

trace.py     the report of a run: figures.py draws it, layers.py has its table, measuring.py says
             how it was measured
study.py     that of a study
proofs.py    that of `gradiometer prove`
"""
