"""Draw every figure of README.md and docs/ again, and print every table that they quote.

Run it where README.md lies: python -m figures
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Each figure, and the command that draws it, as the pages have it.
FIGURES = {
    "compare_optimizers.png": "python compare_optimizers.py",
    "learning.gif": "python compare_optimizers.py --animate learning.gif",
    "sine.png": "python compare_optimizers.py --task sine --lr 0.03 --fit",
    "spirals.png": "python compare_optimizers.py --task spirals --lr 0.03 --fit",
    "terrain.png": "python compare_optimizers.py --task terrain --lr 0.03 --fit",
    "compare_learning_rates.png": "python compare_learning_rates.py --seeds 100",
    "schedules.png": "python compare_learning_rates.py --task terrain --seeds 20"
    " --lr-range 0.001 1 --lr-count 7"
    ' --optimizers constant="Adam()" step="Adam() + StepLR(step_size=4, gamma=0.3)"'
    ' cosine="Adam() + CosineAnnealingLR(T_max=12)"'
    ' one-cycle="Adam() + OneCycleLR(total_steps=480, cycle_momentum=False)"'
    ' warm-up="Adam() + LinearLR(start_factor=0.1, total_iters=2) + CosineAnnealingLR(T_max=12)"',
    "momentum.png": "python compare_learning_rates.py --task scales --batch-size 1000 --epochs 400"
    " --optimizers SGD --over lr momentum --lr-range 0.001 0.1 --lr-count 17",
    "compare_tasks.png": "python compare_tasks.py --judges 160",
    "today.png": "python compare_tasks.py --optimizers today",
    "compare_budgets.png": "python compare_budgets.py",
    "compare_batch_sizes.png": "python compare_batch_sizes.py",
    "compare_paths.png": "python compare_paths.py",
    "race.gif": "python compare_paths.py --animate race.gif",
    "surfaces.png": "python compare_paths.py --surface all",
    "planes.png": "python compare_paths.py --task spirals --lr 0.1 --plane RMSprop Adam",
    "compare_axes.png": "python compare_axes.py --tasks scales spirals deep parabola",
    "matrix.png": 'python compare_axes.py --tasks "tasks.matrix(turned=False)" tasks.matrix'
    ' --optimizers "SGD()" "Adam()" "Muon | AdamW" optimizers.SOAP',
    "compare_classes.png": "python compare_classes.py",
    "compare_sharpness.png": 'python compare_sharpness.py --task sine --optimizers SGD "Adam()"'
    " --lr-range 0.025 0.2 --lr-count 4",
    "check_optimizer.png": "python check_optimizer.py optimizers.RMSprop",
    "live.png": "python compare_optimizers.py --live page.html",
}
# Of these the pages quote the table alone.
TABLES = [
    "python compare_optimizers.py --seeds 100",
    "python compare_batch_sizes.py --lr 0.1",
]


def run(command: str, folder: Path, *more: str) -> None:
    """Run a command of the pages in a folder; its table goes to standard output."""
    _, script, *words = shlex.split(command)
    print(f"\n$ {command}", flush=True)
    subprocess.run(
        [sys.executable, HERE.parent / script, *words, *more, "--no-show"], cwd=folder, check=True
    )


def photograph(page: Path, picture: Path) -> None:
    """Take a picture of a page with Chromium, if it is installed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print(f"{picture.name} stays as it is: there is no chromium")
        shutil.copy(HERE / picture.name, picture)
        return
    look = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,960"]
    wait = "--virtual-time-budget=20000"
    subprocess.run(
        [chromium, *look, wait, f"--screenshot={picture}", page], check=True, capture_output=True
    )


def main(target: Path = HERE) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for figure, command in FIGURES.items():
            # An animation is named in its command; a picture has its script's name there.
            is_named = {figure, "page.html"} & {*command.split()}
            output = [] if is_named else ["--output", figure]
            run(command, folder, *output)
            if figure == "live.png":
                photograph(folder / "page.html", folder / figure)
            shutil.copy(folder / figure, target)
        for command in TABLES:
            run(command, folder)


if __name__ == "__main__":
    main()
