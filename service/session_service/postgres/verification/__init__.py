"""Checks everything that is stored, row by row and row against row."""
