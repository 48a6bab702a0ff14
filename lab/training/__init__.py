"""What trains, and knows nothing of what prints or draws.

Begin with train.py: `train_all` is the one door for one net and for thousands. runs.py has what
goes in and comes out, stack.py and proof.py how many nets train at once.
"""
