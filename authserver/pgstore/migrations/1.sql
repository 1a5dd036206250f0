-- Ids and the values of keys are any bytes, and compared as such.

CREATE TABLE valetkey_records (
	kind    text COLLATE "C" NOT NULL,
	id      bytea  NOT NULL,
	version bigint NOT NULL,
	expires bigint, -- in Unix seconds; NULL: never
	value   bytea  NOT NULL,
	PRIMARY KEY (kind, id)
);

CREATE INDEX valetkey_records_by_end ON valetkey_records (expires) WHERE expires IS NOT NULL;

CREATE TABLE valetkey_keys (
	kind  text COLLATE "C" NOT NULL,
	name  text COLLATE "C" NOT NULL,
	value bytea NOT NULL,
	id    bytea NOT NULL, -- of the record
	PRIMARY KEY (kind, name, value, id),
	FOREIGN KEY (kind, id) REFERENCES valetkey_records ON DELETE CASCADE
);

CREATE INDEX valetkey_keys_by_record ON valetkey_keys (kind, id);

-- Of all records: no version comes twice, not even to a record that was deleted meanwhile.
CREATE SEQUENCE valetkey_versions;

-- valetkey_put is Store.Put in one round trip: it returns the new version, or zero for a conflict. Once the first statement
-- has the row, which it waits for, the others see all that was committed before: this is what READ COMMITTED is needed for.
CREATE FUNCTION valetkey_put(
	of_kind text, of_id bytea, old bigint, ends bigint, new_value bytea, names text[], key_values bytea[], now bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	new bigint;
BEGIN
	IF old = 0 THEN
		INSERT INTO valetkey_records AS r (kind, id, version, expires, value)
		VALUES (of_kind, of_id, nextval('valetkey_versions'), ends, new_value)
		ON CONFLICT (kind, id) DO UPDATE
		SET version = excluded.version, expires = excluded.expires, value = excluded.value
		WHERE r.expires <= now
		RETURNING version INTO new;
	ELSE
		UPDATE valetkey_records
		SET version = nextval('valetkey_versions'), expires = ends, value = new_value
		WHERE kind = of_kind AND id = of_id AND version = old AND (expires IS NULL OR expires > now)
		RETURNING version INTO new;
	END IF;
	IF new IS NULL THEN
		RETURN 0;
	END IF;
	DELETE FROM valetkey_keys
	WHERE kind = of_kind AND id = of_id AND (name, value) NOT IN (SELECT * FROM unnest(names, key_values));
	INSERT INTO valetkey_keys (kind, name, value, id)
	SELECT of_kind, k.name, k.value, of_id FROM unnest(names, key_values) AS k (name, value)
	ON CONFLICT DO NOTHING;
	RETURN new;
END
$$;

-- One row.
CREATE TABLE valetkey_schema (version integer NOT NULL);

INSERT INTO valetkey_schema VALUES (0);
