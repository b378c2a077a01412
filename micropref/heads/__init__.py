"""Maintenance of the heads of a mixture: unsafe heads are found and masked, redundant ones merged.

Both are from the appendix of MiCRo (Shen et al., EMNLP 2025, arXiv:2505.24846). `suggest_annotations` says which
answers to collect before the heads are fitted again.
"""

from micropref.heads._annotations import suggest_annotations
from micropref.heads._audit import HeadAudit, audit_heads
from micropref.heads._mask import mask_heads
from micropref.heads._merge import HeadMerge, merge_heads

__all__ = ["HeadAudit", "HeadMerge", "audit_heads", "mask_heads", "merge_heads", "suggest_annotations"]
