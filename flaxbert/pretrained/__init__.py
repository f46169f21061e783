"""Pre-trained weights: from and to Hugging Face directories."""
