"""octuefs mounts Octue datasets, local or in Google Cloud Storage, as directories."""

__version__ = "0.1.0"
