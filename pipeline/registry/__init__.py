"""Register model versions, decide which one is champion, and show what it was made from."""
