"""Measures watching: how soon an event arrives, with how many streams, and what that costs those who save."""
