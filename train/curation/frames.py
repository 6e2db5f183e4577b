"""Frames of words a problem can be asked in; each can be taken off again."""

FRAMES = (
    "Please solve this. {}",
    "Solve the following problem.\n{}",
    "Here is a problem for you: {}",
    "I need help with this: {}",
    "{}\nThink step by step.",
    "{}\nExplain your reasoning, then give the answer.",
    "{} Show your work.",
    "Can you answer this?\n{}",
    "Think carefully before you answer. {}",
    "{}\nWhat is the final answer?",
)


def unframed(problem: str) -> str:
    """The problem without its frame; as it is where it has none."""
    for frame in FRAMES:
        before, _, after = frame.partition("{}")
        if problem.startswith(before) and problem.endswith(after):
            inner = problem[len(before) : len(problem) - len(after)]
            if inner:
                return inner
    return problem
