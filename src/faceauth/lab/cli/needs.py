"""What the laboratory needs beyond the base installation."""

from faceauth.errors import MissingExtra


def need_lab() -> None:
    """Raises MissingExtra where the extra `lab` is not installed."""
    try:
        import onnx  # noqa: F401
        import pandas  # noqa: F401
        import pydantic  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"the laboratory needs {error.name}", "lab") from error


def need_tables() -> None:
    """Raises MissingExtra where a package is missing that tables of scores need; torch is none of them."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"evaluating needs {error.name}", "lab") from error
