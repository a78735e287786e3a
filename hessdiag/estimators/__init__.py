"""Numerical methods on an operator or a problem; they know nothing of files or screens."""
