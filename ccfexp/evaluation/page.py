"""What the pages for clinicians share: one look, and numbers and words in one form."""

from __future__ import annotations

from importlib.resources import files

import jinja2
from markupsafe import Markup

from ccfexp.evaluation.report_text import bytes_text, duration_text, grade_text, movement_text, number_text, side_text


def page_environment() -> jinja2.Environment:
    """An environment that escapes everything, refuses names that are not given, and knows `house_style`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "bytes": bytes_text,
        "duration": duration_text,
        "grade": grade_text,
        "movement": movement_text,
        "number": number_text,
        "side": side_text,
    }
    style = (files(__package__) / "templates" / "page.css").read_text("utf-8")
    environment.globals["house_style"] = Markup(style)  # noqa: S704  # a file of this package
    return environment
