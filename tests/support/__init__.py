"""What several tests share: a GCS server, the real SDK, real mounts, golden data."""
