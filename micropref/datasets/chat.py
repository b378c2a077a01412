"""Names that this module held in 0.1; each warns and says where it is now."""

from micropref._support.renamed import moved

__all__: list[str] = []

__getattr__ = moved(__name__)
