"""Derivations proved with SymPy, and small worlds whose optimum is known exactly.

Training and evaluation do not import this package.
"""
