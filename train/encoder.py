"""The tokenizer of training texts."""

from pathlib import Path


class TextEncoder:
    """Encodes trusted text, special tokens included, by Hugging Face's `tokenizers`."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.vocab_size: int = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def load_encoder(folder: Path) -> TextEncoder:
    """The encoder of a folder that holds tokenizer.json."""
    return TextEncoder(folder)
