"""The Genie: ask the documents, and get only what they say."""
