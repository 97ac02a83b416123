"""Images, texts and tables to learn codes of, from memory, files or streams."""
