"""What `pip install .` calls: it says how the scripts are used instead."""

raise SystemExit(
    "Nothing is to be installed: run the scripts where they lie, as `python compare_optimizers.py`."
    " They need: pip install -r requirements.txt. To import them elsewhere, write before: "
    "import sys; sys.path.insert(0, 'the folder of this repository')"
)
