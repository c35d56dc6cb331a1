"""What frameworks are told on a kernel whose processes share no memory; the script need not know.

PaddlePaddle's DataLoader hands batches from its workers over in /dev/shm unless `use_shared_memory` is false; then
they go through pipes, with the same values. Without a /dev/shm the workers fail, and the loader waits for ever.

Threading: call `without_shared_memory` once, before the framework is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def without_shared_memory() -> None:
    """Let loaders that are made from now on hand nothing over in shared memory."""
    sys.meta_path.insert(0, _AfterImport("paddle.io.reader", _adapt_loader))


def _adapt_loader(module: ModuleType) -> None:
    real = module.DataLoader.__init__

    @wraps(real)
    def initialise(self: Any, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        self.use_shared_memory = False

    module.DataLoader.__init__ = initialise


class _AfterImport(MetaPathFinder):
    """Calls a function with one module as soon as it is imported.

    Args:
        name: Of the module.
        adapt: Called with it.
    """

    def __init__(self, name: str, adapt: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._adapt = adapt

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname != self._name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Adapting(spec.loader, self._adapt)
        return spec


class _Adapting(Loader):
    def __init__(self, loader: Loader, adapt: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._adapt = adapt

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `Loader`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See `Loader`."""
        self._loader.exec_module(module)
        self._adapt(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for tracebacks and `inspect`
