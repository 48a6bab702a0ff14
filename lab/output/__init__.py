"""What is said and saved: a table as its rows come, a figure, a CSV, whatever happens meanwhile.

Begin with report.py.
"""
