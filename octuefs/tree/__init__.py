"""The namespace: nodes that the operations walk."""
