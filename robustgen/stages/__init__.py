"""One file a command. A stage is a value: its settings and folders; calling it leaves files. No torch at import."""
