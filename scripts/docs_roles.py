"""Extension of griffe: docstrings say :func:`name` and :math:`x`, as editors know it; pages show code and formulas."""

import re
from typing import Any

from docs_formulas import with_formulas
from griffe import Extension, Object

ROLE = re.compile(r":(?:attr|class|func|meth|mod):(?=`)")


class Roles(Extension):
    """Takes the names of roles out of docstrings."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub("", with_formulas(obj.docstring.value))
