"""Fine-tune a language model with LoRA on a dataset."""
