"""The type checker of `make shapes`: beartype, as ``--jaxtyping-packages=multimix,shape_checker.check``."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping hands over one function at a time, where beartype cannot know which class Self is.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
