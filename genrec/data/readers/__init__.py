"""Read tables from files, Arrow data and the Hugging Face hub."""
