"""What the laboratory needs beyond the base installation."""

from importlib.util import find_spec

from faceauth.errors import MissingExtra


def need_lab() -> None:
    """Raises MissingExtra where the extra `lab` is not installed; imports nothing of it."""
    _need("the laboratory", "onnx", "pandas", "pydantic", "torch")


def need_tables() -> None:
    """Raises MissingExtra where a package is missing that tables of scores need; torch is none of them."""
    _need("evaluating", "jinja2", "matplotlib", "pandas", "pyarrow", "sklearn")


def _need(what: str, *packages: str) -> None:
    for name in packages:
        if find_spec(name) is None:
            raise MissingExtra(f"{what} needs {name}", "lab")
