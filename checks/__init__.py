"""What check_optimizer.py checks. Read that one first; this need not be read.

finding.py      a sentence about what is wrong, and the line of theirs that fails
maker.py        a class with its hyperparameters; the parameters it takes; one step of it
same_steps.py   walks, on which two optimizers have to take the same steps
mistakes.py     hundreds of mistakes for each rule of optimizers/, by changing its source
known.py        those that have a sentence of their own, the real ones with their links
contract.py     what every optimizer has to hold to
problems.py     little problems with one difficulty each
chinese.json    every sentence in Chinese
"""
