"""Mass profiles."""
