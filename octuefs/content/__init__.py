"""Bytes on their way from a store to a reader."""
