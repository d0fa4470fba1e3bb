"""Runnable examples: from-scratch systems, working on xpnet; see README.md beside."""
