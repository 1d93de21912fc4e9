"""Who is champion, and from what: versions, gate, history, model card, lineage, bundle."""
