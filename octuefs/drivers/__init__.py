"""Adapters between the kernel and the operations; they translate only."""
