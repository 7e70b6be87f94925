"""Faults put into a module for the length of a test, by exchanging the code of its functions."""

import contextlib
import inspect
from types import FunctionType


@contextlib.contextmanager
def planted(module, old, new):
    """Every function of `module` as it would be with `old` replaced by `new` in its source, wherever it was imported."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
    namespace = dict(module.__dict__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), namespace)
    kept = {}
    for name, value in list(module.__dict__.items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        pairs = [(value, namespace[name])]
        if isinstance(value, type):
            pairs = [(f, namespace[name].__dict__.get(n)) for n, f in value.__dict__.items()]
        for function, changed in pairs:
            if isinstance(function, FunctionType) and isinstance(changed, FunctionType):
                kept[function] = function.__code__
                function.__code__ = changed.__code__
    try:
        yield
    finally:
        for function, code in kept.items():
            function.__code__ = code
