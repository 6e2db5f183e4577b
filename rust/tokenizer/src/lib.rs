//! Byte-level BPE on Hugging Face `tokenizer.json`: exact, and fast.
