"""The live page: its modules in JavaScript, and `page.py`, which puts them into one file."""
