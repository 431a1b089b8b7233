"""Records that stages write to disk: arrays with one row per image or step; summaries are methods. NumPy only."""
