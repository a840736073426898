"""``python -m molcmim``: the same as the ``molcmim`` command."""

from molcmim.cli import app

if __name__ == "__main__":
    app()
