package config_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/config"
)

type settings struct {
	Listen   string            `yaml:"listen,required"`
	Scopes   []string          `yaml:"scopes,single,filled"`
	Verbose  bool              `yaml:"verbose"`
	Timeout  time.Duration     `yaml:"timeout"`
	DB       uint              `yaml:"db"`
	Routes   map[string]string `yaml:"routes"`
	Port     port              `yaml:"port"`
	Database *struct{}         `yaml:"database"`
	Redis    *redis            `yaml:"redis"`
	Password config.Secret     `yaml:"password"`
	Seal     config.Secret     `yaml:"seal,apart"`
	inner    `yaml:",inline"`
	Inner    `yaml:",inline"`
}

type inner struct{ Hidden string }
type Inner struct {
	Realm string `yaml:"realm"`
}
type redis struct {
	Address string `yaml:"address,required"`
}
type port string

func (p *port) UnmarshalText(text []byte) error {
	if *p = port(text); *p != "https" {
		return fmt.Errorf("%q is not https", text)
	}
	return nil
}

func read(text string, check func(*config.Document) error) (s settings, err error) {
	if check == nil {
		check = func(*config.Document) error { return nil }
	}
	return s, config.Read("c.yaml", strings.NewReader(text), &s, check)
}

func TestEveryMistakeIsReportedWithItsLine(t *testing.T) {
	const known = "listen, scopes, verbose, timeout, db, routes, port, database, redis, password, password_file, password_env, seal_file, seal_env, realm"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"an empty document", "", []string{"1: listen: required"}},
		{"a list", "- x", []string{"1: is not a mapping"}},
		{"a required field that is empty", "listen: ''", []string{"1: listen: is empty"}},
		{"a required field without a value", "listen:", []string{"1: listen: is empty"}},
		{"a second document", "listen: x\n---\na: b", []string{"2: there is more than one YAML document"}},
		{"a typing error", "listen: x\nverbsoe: true", []string{`2: unknown field "verbsoe"; did you mean verbose?`}},
		{"a typing error in another mapping", "listen: x\nredis:\n  adress: y", []string{
			`3: redis: unknown field "adress"; did you mean address?`, "3: redis.address: required"}},
		{"an unknown field", "listen: x\nreplicas: 3", []string{`2: unknown field "replicas"; known are ` + known}},
		{"a secret in place of a field", "listen: x\n{s3cret!: y}: z", []string{
			"2: a key is not a string: put it in quotes"}},
		{"a secret without a space", "{listen: x, 'password:s3cret!': y}", []string{"1: unknown field; known are " + known}},
		{"the field of the inner struct that is not exported", "listen: x\nhidden: y", []string{`2: unknown field "hidden"; known are ` + known}},
		{"a field twice", "listen: x\nlisten: y", []string{`2: "listen" is given on line 1 already`}},
		{"a secret that looks like a field twice", "{listen: x, s3cret!: y, s3cret!: z}", []string{
			"1: a key is given on line 1 already", "1: unknown field; known are " + known}},
		{"a key of a map twice", "listen: x\nroutes:\n  GET /a: b\n  GET /a: c", []string{`4: routes: "GET /a" is given on line 3 already`}},
		{"a merge key", "listen: x\n<<: {}", []string{"2: a key is not a string: put it in quotes"}},
		{"an empty key", "listen: x\n'': y", []string{"2: a key is empty"}},
		{"an alias", "listen: &a x\nrealm: *a", []string{"2: realm: aliases are not supported"}},
		{"values of other types", "listen: 8080\nscopes: {a: b}\nverbose: please\ntimeout: 30\ndb: -1\nroutes: x\nport: http\nredis: y", []string{
			"1: listen: is not a string: put it in quotes", "2: scopes: is not a list", `3: verbose: "please" is not true or false`,
			`4: timeout: "30" is not a duration such as 30s`, `5: db: "-1" is not a whole number, 0 or above`, "6: routes: is not a mapping",
			`7: port: "http" is not https`, "8: redis: is not a mapping"}},
		{"an element that is empty", "listen: x\nscopes:\n  - a\n  - ''", []string{"4: scopes[1]: is empty"}},
		{"a list that is empty", "listen: x\nscopes: []", []string{"2: scopes: is empty"}},
		{"a struct without its fields", "listen: x\nredis: {}", []string{"2: redis.address: required"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.text, nil)
			require.Error(t, err)
			assert.Equal(t, c.want, strings.Split(strings.ReplaceAll(err.Error(), "c.yaml:", ""), "\n"))
			assert.NotContains(t, err.Error(), "s3cret")
		})
	}
	for _, c := range []struct{ name, text, want string }{
		{"no YAML", "listen: [", "c.yaml: yaml: line 1"},
		{"an unknown alias", "password: *s3cret", "c.yaml: aliases are not supported: quote values that begin with *"},
		{"nesting without end", strings.Repeat("[", 20_000), "exceeded max depth"},
		{"over a megabyte", strings.Repeat("#", 1<<20+1), "c.yaml: is longer than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.text, nil)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "s3cret")
		})
	}
}

func TestMistakesOfAConstructorGetTheNamesAndLinesOfTheFile(t *testing.T) {
	_, err := read("listen: x\nredis:\n  address: y\nroutes:\n  a:\n    z\ndb: no", func(d *config.Document) error {
		d.Blame("redis", errors.Join(&valetkey.ConfigError{Field: "Addr", Err: errors.New("has no port")},
			&valetkey.ConfigError{Field: "Users[1], Addr", Err: errors.New("is\nmissing")},
			&valetkey.ConfigError{Field: "Other", Err: errors.New("is odd")}), map[string]string{"Addr": "address", "Users": "users"})
		d.Mistake("redis.address", "has no port")
		d.Mistake("db", "follows from what could not be read")
		return errors.Join(&valetkey.ConfigError{Field: `routes["a"]`, Err: errors.New("is wrong")}, errors.New("nothing fits"))
	})
	require.EqualError(t, err, "c.yaml:1: nothing fits\nc.yaml:3: redis.address: has no port\nc.yaml:3: redis.users, redis.address: is; missing\n"+
		"c.yaml:3: redis: Other: is odd\n"+
		"c.yaml:5: routes[\"a\"]: is wrong\nc.yaml:7: db: \"no\" is not a whole number, 0 or above")
	assert.Len(t, valetkey.ConfigErrors(err), 6)
}

func TestReads(t *testing.T) {
	s, err := read(`{listen: x, scopes: a, verbose: true, timeout: 1m30s, db: 2, routes: {a: b}, port: https, database: , realm: r, redis: {address: y}}`, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, s.Scopes)
	assert.Equal(t, 90*time.Second, s.Timeout)
	assert.Equal(t, map[string]string{"a": "b"}, s.Routes)
	assert.Equal(t, "r", s.Realm)
	assert.Equal(t, "y", s.Redis.Address)
	assert.NotNil(t, s.Database)
	assert.True(t, s.Verbose && s.DB == 2 && s.Port == "https")
}

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, text := range map[string]string{"one": "s3cret\r\n", "empty": "\n", "long": strings.Repeat("s3cret", 20_000), "key": key + "\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	t.Setenv("VALETKEY_TEST_SECRET", "s3cret")
	for _, c := range []struct{ name, text, want, mistakes string }{
		{"a file that is not there", "password_file: s3cret", "", "2: password_file: the file cannot be read: no such file or directory"},
		{"a file that is empty", "password_file: empty", "", "2: password_file: is empty or missing"},
		{"a file that is too long", "password_file: long", "", "2: password_file: the file cannot be read: it is longer than 65536 bytes"},
		{"a variable that is not set", "password_env: s3cret", "", "2: password_env: is empty or missing"},
		{"a text that is empty", "password: ''", "", "2: password: is empty"},
		{"a number", "password: 12345", "", "2: password: is not a string: put it in quotes"},
		{"a mapping, which quotes do not help", "password: {a: b}", "", "2: password: is not a string"},
		{"two sources", "password_file: one\npassword_env: VALETKEY_TEST_SECRET", "s3cret", "3: password_env: cannot be combined with password_file"},
		{"a text that must be apart", "seal: s3cret", "", `2: unknown field "seal"; did you mean seal_file?`},
		{"an invalid key", "seal_env: VALETKEY_TEST_SECRET", "", "2: seal_env: is not the base64 of 32 random bytes, as from openssl rand -base64 32"},
		{"none", "", "", ""},
		{"a text", "password: s3cret", "s3cret", ""},
		{"a file beside the document", "password_file: one", "s3cret", ""},
		{"a variable", "password_env: VALETKEY_TEST_SECRET", "s3cret", ""},
		{"a key", "seal_file: key", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, "c.yaml")
			require.NoError(t, os.WriteFile(path, []byte("listen: x\n"+c.text), 0o600))
			var s settings
			err := config.ReadFile(path, &s, func(d *config.Document) error {
				assert.Equal(t, c.want, d.Secret(s.Password))
				assert.Equal(t, c.name == "a key", len(d.Key(s.Seal)) == 32)
				assert.Equal(t, strings.HasPrefix(c.text, "seal_"), d.SecretGiven(s.Seal))
				return nil
			})
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), path+":", "")
			}
			assert.Equal(t, c.mistakes, got)
		})
	}
}

func TestFieldName(t *testing.T) {
	type part struct {
		RedirectURIs []string              `yaml:"redirect_uris"`
		Exchange     map[string][]string   `yaml:"exchange"`
		Inner        *struct{ MaxAge int } `yaml:"inner"`
	}
	type inline struct {
		Clients []part `yaml:"clients"`
	}
	var names map[string]string
	var v struct {
		inline    `yaml:",inline"`
		Keys      part   `yaml:"keys"`
		UserTypes []part `yaml:"-"`
	}
	err := config.Read("", strings.NewReader("keys: {}"), &v, func(d *config.Document) error {
		names = map[string]string{}
		for _, field := range []string{
			"", "Keys", "Clients[0].RedirectURIs[1]", `Keys.Exchange["a.b]\"[c"][2]`, "Keys.Inner.MaxAge", "UserTypes[3].RedirectURIs",
			"Keys.RedirectURIs, Clients[1]", "clients[0].redirect_uris", "Keys.Missing", "Keys[0]", "Keys.RedirectURIs.X",
		} {
			names[field] = d.FieldName(field)
		}
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{
		"":                              "",
		"Keys":                          "keys",
		"Clients[0].RedirectURIs[1]":    "clients[0].redirect_uris[1]",
		`Keys.Exchange["a.b]\"[c"][2]`:  `keys.exchange["a.b]\"[c"][2]`,
		"Keys.Inner.MaxAge":             "keys.inner.max_age",
		"UserTypes[3].RedirectURIs":     "user_types[3].redirect_uris",
		"Keys.RedirectURIs, Clients[1]": "keys.redirect_uris, clients[1]",
		"clients[0].redirect_uris":      "clients[0].redirect_uris",
		"Keys.Missing":                  "Keys.Missing",
		"Keys[0]":                       "Keys[0]",
		"Keys.RedirectURIs.X":           "Keys.RedirectURIs.X",
	}, names)
}

type shortened struct {
	Rules []rule          `yaml:"rules,single,filled"`
	Rows  map[string]rule `yaml:"rows"`
}

type rule struct {
	Text    string `yaml:"text,required,short"`
	Message string `yaml:"message,filled"`
}

func TestAScalarInPlaceOfAMappingIsItsShortField(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"a list in a list", "rules: [[a]]", []string{"1: rules[0]: is neither a string nor a mapping"}},
		{"a list in a mapping", "rows: {a: [b]}", []string{`1: rows["a"]: is neither a string nor a mapping`}},
		{"an empty text", "rules: ['']", []string{"1: rules[0]: is empty"}},
		{"null", "rows:\n  a:", []string{`2: rows["a"]: is empty`}},
		{"a number", "rules: 1", []string{"1: rules: is not a string: put it in quotes"}},
		{"a mapping without the field", "rules:\n- message: b", []string{"2: rules[0].text: required"}},
		{"a mapping with another field", "rules:\n- {text: a, note: b}", []string{`2: rules[0]: unknown field "note"; known are text, message`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s shortened
			err := config.Read("", strings.NewReader(c.text), &s, func(*config.Document) error { return nil })
			assert.EqualError(t, err, "line "+strings.Join(c.want, "\nline "))
		})
	}
	var s shortened
	require.NoError(t, config.Read("", strings.NewReader("rules: [a, {text: b, message: c}]\nrows: {x: d}"), &s, func(d *config.Document) error {
		assert.False(t, d.Given("rules[0].text"))
		assert.True(t, d.Given("rules[1].text"))
		return nil
	}))
	assert.Equal(t, shortened{[]rule{{"a", ""}, {"b", "c"}}, map[string]rule{"x": {"d", ""}}}, s)
	s = shortened{}
	require.NoError(t, config.Read("", strings.NewReader("rules: a"), &s, func(*config.Document) error { return nil }))
	assert.Equal(t, []rule{{"a", ""}}, s.Rules)
	require.NoError(t, config.Read("", strings.NewReader("rules: {text: a, message: b}"), &s, func(*config.Document) error { return nil }))
	assert.Equal(t, []rule{{"a", "b"}}, s.Rules)
}

// keyed is a list that is written as a mapping.
type keyed struct {
	Rights []right `yaml:"rights"`
}

type right struct {
	Name  string            `yaml:",key"`
	Text  string            `yaml:"text,short"`
	Texts map[string]string `yaml:"texts"`
}

func TestAListWithAKeyIsAMappingWhoseOrderIsKept(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a list", "rights: [a]", "line 1: rights: is not a mapping"},
		{"a key twice", "rights:\n  a: x\n  a: y", `line 3: rights: "a" is given on line 2 already`},
		{"a wrong element", "rights:\n  b: x\n  a: {text: [y]}", `line 3: rights["a"].text: is not a string`},
		{"the key as a field", "rights: {a: {name: b}}", `line 1: rights["a"]: unknown field "name"; known are text, texts`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := config.Read("", strings.NewReader(c.text), new(keyed), func(*config.Document) error { return nil })
			assert.EqualError(t, err, c.want)
		})
	}
	var k keyed
	require.NoError(t, config.Read("", strings.NewReader("rights: {z: last, a: {text: first, texts: {de: erstes}}}"), &k, func(d *config.Document) error {
		assert.True(t, d.Given(`rights["a"]`))
		return nil
	}))
	assert.Equal(t, []right{{"z", "last", nil}, {"a", "first", map[string]string{"de": "erstes"}}}, k.Rights)
	schema, err := config.SchemaOf(keyed{}, config.Guide{
		Keys: map[string]string{"rights": "x", "rights.*": "x", "rights.*.text": "x", "rights.*.texts": "x", "rights.*.texts.*": "x"},
	})
	require.NoError(t, err)
	got, err := json.Marshal(schema["properties"].(map[string]any)["rights"])
	require.NoError(t, err)
	assert.JSONEq(t, `{"type": "object", "description": "x", "propertyNames": {"minLength": 1}, "additionalProperties": {"description": "x", "anyOf": [
		{"type": "string"},
		{"type": "object", "additionalProperties": false, "properties": {"text": {"type": "string", "description": "x"},
			"texts": {"type": "object", "description": "x", "propertyNames": {"minLength": 1}, "additionalProperties": {"type": "string", "description": "x"}}}}
	]}}`, string(got))
}
