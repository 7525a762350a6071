"""One comparison as a document: what a team lead decides from in a minute."""
