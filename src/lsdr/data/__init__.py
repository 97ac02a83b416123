"""Images to train on, from folders, Parquet, Hugging Face datasets, NumPy archives or scikit-learn."""
