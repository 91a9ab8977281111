"""What is true: derivations proved with SymPy, and toy worlds whose optimum is known.

Nothing at run time imports it.
"""
