"""Whole datasets, between a local folder and a bucket, and the proof that they are what they should be.

`commands/transfer.py` opens the stores and calls `upload`, `download` and `verify`; an `Outcome` leaves, with what
failed by path. Each file is one job on a pool of threads (`jobs.py`); `records.py` says what the metadata of one
store is in the other.
"""
