"""Extension of griffe: docstrings say :func:`name`, as editors know it; the pages show the name as code."""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:attr|class|func|math|meth|mod):(?=`)")


class Roles(Extension):
    """Takes the names of roles out of docstrings."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub("", obj.docstring.value)
