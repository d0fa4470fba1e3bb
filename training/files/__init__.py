"""Files of every kind that xpnet writes and reads."""
