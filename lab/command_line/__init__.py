"""What one types: the parser, its options and their types, and the names of optimizers and tasks.

Begin with specs.py, the language that names an optimizer.
"""
