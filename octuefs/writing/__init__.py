"""Changing a dataset: on a disk in place, in the cloud through staged files; both behind `base.Writer`."""
