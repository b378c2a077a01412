"""Optional dependencies: imported when needed, and a missing one is an error that names its pip command."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

# import name -> the extra that brings it
EXTRA_OF = {
    "fastapi": "serve",
    "pydantic": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "torch": "torch",
    "triton": "torch",
    "numba": "numba",
    "sentence_transformers": "embed",
    "transformers": "embed",
    "model2vec": "embed-light",
    "onnxruntime": "embed-light",
    "tokenizers": "embed-light",
    "huggingface_hub": "hub",
    "faiss": "faiss",
    "matplotlib": "plot",
    "pandas": "data",
    "pyarrow": "data",
    "datasets": "data",
    "trl": "trl",
}


def _is_absent(package: str, error: ImportError) -> bool:
    """Whether it is this package that an import did not find, and not what the package itself imports."""
    if not isinstance(error, ModuleNotFoundError):
        return False
    return error.name == package or importlib.util.find_spec(package) is None


def require(module: str, purpose: str) -> ModuleType:
    """Import `module`, or raise an ImportError: how to install what is absent, or why what is there cannot be imported.

    Parameters
    ----------
    module : str
        Name of the module, dotted names allowed.
    purpose : str
        What the user was doing, as the subject of "... needs <module>".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".", 1)[0]
        if not _is_absent(package, error):
            raise ImportError(
                f"{purpose} needs {package}, which is installed but cannot be imported: {error}"
            ) from error
        raise ImportError(
            f"{purpose} needs {package}, which is not installed. "
            f"Install it with: pip install 'micropref[{EXTRA_OF[package]}]'"
        ) from error
