"""Settings of the manual: ``make docs`` builds it, without a network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import deepcg  # noqa: E402

project = "deepcg"
author = "the deepcg authors"
copyright = "the deepcg authors, MIT license"
version = release = deepcg.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "mathml",
    "plain_docstrings",
    "command_pages",
    "reference_pages",
    "notebook_pages",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext"]
nitpicky = True
# names of other projects are not looked up: a build needs no network
nitpick_ignore_regex = [("py:.*", r"(?!(deepcg|sampling|free_energy)\.).*")]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries = False

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
highlight_language = "none"
nb_execution_mode = "off"
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"deepcg {release}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_copy_source = False
html_show_sourcelink = False

default_role = "code"  # single backticks in tables of docstrings
