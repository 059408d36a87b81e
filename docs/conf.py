"""How Sphinx builds these pages. Nothing is fetched, so they are read offline too."""

from importlib.metadata import version as version_of

project = "gradiometer"
author = "The gradiometer developers"
copyright = "the gradiometer developers"  # noqa: A001, the name is Sphinx's
version = release = version_of("gradiometer")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
# the pages of the adapters are built without their frameworks
autodoc_mock_imports = ["torch", "lightning", "jax"]
autodoc_typehints = "none"  # the docstrings say types in words
napoleon_google_docstring = False

html_theme = "furo"
html_title = "gradiometer"


def escape_bars(_app, _what, _name, _object, _options, lines):
    """Docstrings write |x| for an absolute value, which reStructuredText takes for a reference."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app):
    """Before napoleon reads the docstrings."""
    app.connect("autodoc-process-docstring", escape_bars, priority=100)
