"""Covariance functions: a table of them, and their stochastic differential equations, a file for each kind."""
