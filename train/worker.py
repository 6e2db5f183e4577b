"""One rank of a run: `python -m falcon_h1r.train.worker RECIPE`, started by `distributed.launch`.

The recipe, already checked, lies in the run's folder; lines and errors go to the launcher.
"""

import os
import sys
from pathlib import Path

from falcon_h1r.errors import FalconH1RError
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.distributed import tell, tell_error, watch_launcher
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.sft import train_as_rank


def main() -> int:
    """Train as the rank that the environment names; 1 after an error that was told."""
    watch_launcher()
    recipe = Path(sys.argv[1])
    try:
        train_as_rank(load_recipe(SftRecipe, recipe), recipe.parent, tell)
    except FalconH1RError as error:
        tell_error(error)
        sys.stdout.flush()
        os._exit(1)  # without waiting for peers that may be gone
    return 0


if __name__ == "__main__":
    sys.exit(main())
