SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE FUNCTION public.valetkey_put(of_kind text, of_id bytea, old bigint, ends bigint, new_value bytea, names text[], key_values bytea[], now bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
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

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.valetkey_keys (
    kind text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL,
    id bytea NOT NULL
);

CREATE TABLE public.valetkey_records (
    kind text NOT NULL COLLATE pg_catalog."C",
    id bytea NOT NULL,
    version bigint NOT NULL,
    expires bigint,
    value bytea NOT NULL
);

CREATE TABLE public.valetkey_schema (
    version integer NOT NULL
);

CREATE SEQUENCE public.valetkey_versions
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

INSERT INTO public.valetkey_keys VALUES ('client', 'mail', '\x', '\x73686f70');
INSERT INTO public.valetkey_keys VALUES ('client', 'owner', '\x637573746f6d65723a616c696365', '\x73686f70');

INSERT INTO public.valetkey_records VALUES ('client', '\x73686f70', 1, NULL, '\x7b226e616d65223a2253686f70227d');
INSERT INTO public.valetkey_records VALUES ('grant', '\x00ff', 2, 32503680000, '\x00ff');
INSERT INTO public.valetkey_records VALUES ('key', '\x6b', 3, NULL, '\x');

INSERT INTO public.valetkey_schema VALUES (1);

SELECT pg_catalog.setval('public.valetkey_versions', 3, true);

ALTER TABLE ONLY public.valetkey_keys
    ADD CONSTRAINT valetkey_keys_pkey PRIMARY KEY (kind, name, value, id);

ALTER TABLE ONLY public.valetkey_records
    ADD CONSTRAINT valetkey_records_pkey PRIMARY KEY (kind, id);

CREATE INDEX valetkey_keys_by_record ON public.valetkey_keys USING btree (kind, id);

CREATE INDEX valetkey_records_by_end ON public.valetkey_records USING btree (expires) WHERE (expires IS NOT NULL);

ALTER TABLE ONLY public.valetkey_keys
    ADD CONSTRAINT valetkey_keys_kind_id_fkey FOREIGN KEY (kind, id) REFERENCES public.valetkey_records(kind, id) ON DELETE CASCADE;

