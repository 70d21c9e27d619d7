-- Around the user's own optional query files.

-- name: read_only
-- Nothing may be written until the end of this (sub)transaction: these files answer questions.
SET LOCAL transaction_read_only = on;
