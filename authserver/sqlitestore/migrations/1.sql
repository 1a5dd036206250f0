-- Ids and the values of keys are any bytes, and compared as such.

CREATE TABLE records (
	kind    TEXT    NOT NULL,
	id      BLOB    NOT NULL,
	version INTEGER NOT NULL,
	expires INTEGER, -- in Unix seconds; NULL: never
	value   BLOB    NOT NULL,
	PRIMARY KEY (kind, id)
) STRICT;

CREATE INDEX records_by_end ON records (expires) WHERE expires IS NOT NULL;

CREATE TABLE keys (
	kind  TEXT NOT NULL,
	name  TEXT NOT NULL,
	value BLOB NOT NULL,
	id    BLOB NOT NULL, -- of the record
	PRIMARY KEY (kind, name, value, id),
	FOREIGN KEY (kind, id) REFERENCES records ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_record ON keys (kind, id);

-- One row: the last version given, to whatever record. None comes twice, not even to a record that was deleted meanwhile.
CREATE TABLE versions (last INTEGER NOT NULL) STRICT;

INSERT INTO versions VALUES (0);
