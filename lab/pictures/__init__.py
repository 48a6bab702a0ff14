"""What is drawn: how every figure looks, what nets have learned, paths, and how they move.

Begin with style.py.
"""
