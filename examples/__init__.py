"""Runnable examples of from-scratch systems on xpnet; see README.md in this folder."""
