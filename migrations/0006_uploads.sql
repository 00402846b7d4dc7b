-- Uploads: a state larger than one message is written into a transcript of its own by short transactions, and only the
-- last one makes a revision of it.

-- Until then the transcript has a deadline; then it is NULL, as for every other transcript. After the deadline nothing
-- is written to it, and no revision made of it, so whoever finds one may remove it with its segments: DELETE … WHERE
-- upload_deadline < now() meets an upload that ends at this moment at the row's lock, and sees that it has none any more.
ALTER TABLE transcripts ADD COLUMN upload_deadline timestamptz;

-- Spans agents: finds what broken uploads left. Nearly always empty.
CREATE INDEX transcripts_uploads ON transcripts (upload_deadline) WHERE upload_deadline IS NOT NULL;
