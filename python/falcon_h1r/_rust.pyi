"""Types of the compiled module; `make lint` compares this file with it."""

__version__: str

# --- tokenizer ---

# --- scheduler ---

# --- kernels ---
