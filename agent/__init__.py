"""What it is: task spec, tokenizer, embeddings, transformer, policy. Imports nothing else of Clowder."""
