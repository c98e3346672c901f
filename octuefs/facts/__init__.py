"""The facts of a bucket's objects, packed: in memory for many files, and on disk over mounts."""
