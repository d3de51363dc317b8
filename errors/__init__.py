"""What a user is shown of an error, or of Ctrl-C: one line."""
