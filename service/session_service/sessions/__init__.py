"""The domain: sessions, revisions, transcripts and their rules, without any I/O."""
