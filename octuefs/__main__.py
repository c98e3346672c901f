"""`python -m octuefs` is the `octuefs` command."""

from octuefs.cli import app

if __name__ == "__main__":
    app()
