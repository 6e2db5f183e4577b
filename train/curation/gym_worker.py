"""The process that asks a task of reasoning-gym whether answers are right.

Arguments: task, seed, size, options as JSON. One JSON line in, [index, answer]; one line out,
"right" or "wrong". Killed from outside when an answer makes the task's verifier hang.
"""

import json
import sys
from collections.abc import Callable


def judge(make: Callable[[], object]) -> None:
    """Answer questions until standard input ends; a verifier that crashes has said no."""
    data = make()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        index, answer = json.loads(line)
        try:
            entry = data[index]  # type: ignore[index]
            is_right = float(data.score_answer(answer, entry)) >= 1.0  # type: ignore[attr-defined]
        except Exception:
            is_right = False
        sys.stdout.write("right\n" if is_right else "wrong\n")
        sys.stdout.flush()


if __name__ == "__main__":
    import reasoning_gym

    task, seed, size, options = sys.argv[1:]
    judge(
        lambda: reasoning_gym.create_dataset(
            task, seed=int(seed), size=int(size), **json.loads(options)
        )
    )
