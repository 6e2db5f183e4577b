"""The `falcon-h1r` command: one file a subcommand."""
