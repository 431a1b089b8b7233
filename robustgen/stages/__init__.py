"""What the commands do: settings and folders in, files and a sentence for the user out. torch is imported late."""
