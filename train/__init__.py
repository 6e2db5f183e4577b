"""Training: curation, SFT, PPO and GRPO. Each loop reads top to bottom."""
