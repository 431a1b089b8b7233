"""One module per command. A stage is a value: settings and folders; calling it writes files. No torch at import."""
