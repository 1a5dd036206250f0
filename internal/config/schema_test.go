package config_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/config"
)

type listed struct {
	Mode  string         `yaml:"mode" oneof:"on off auto"`
	Modes []string       `yaml:"modes,single" oneof:"on off"`
	Port  port           `yaml:"port"`
	Ports map[string]int `yaml:"ports"`
	Token config.Secret  `yaml:"token"`
	List  []struct {
		Name string `yaml:"name,required"`
	} `yaml:"list"`
}

var guide = config.Guide{
	Title: "Test",
	Keys: map[string]string{
		"mode": "The mode.", "modes": "All modes.", "port": "The port.", "ports": "All ports.", "ports.*": "A port.", "token": "The token.",
		"list": "The list.", "list.name": "The name.",
	},
	Texts:  map[reflect.Type]config.Schema{reflect.TypeFor[port](): {"const": "https"}},
	Values: map[string][]string{"list.name": {"a", "b"}},
	Rules:  map[string]config.Schema{"list": config.Required("name")},
}

func TestSchemaLacksNothing(t *testing.T) {
	_, err := config.SchemaOf(listed{}, config.Guide{})
	require.EqualError(t, err, `mode: has no description
modes: has no description
port: the type config_test.port has no schema
port: has no description
ports.*: has no description
ports: has no description
token: has no description
list.name: has no description
list: has no description`)
	_, err = config.SchemaOf(listed{}, guide)
	require.NoError(t, err)
	assert.Equal(t, []string{"list", "list.name", "mode", "modes", "port", "ports", "ports.*", "token"}, config.Paths(listed{}))
}

func TestSchemaHasTheFieldsThatAreRead(t *testing.T) {
	schema, err := config.SchemaOf(listed{}, guide)
	require.NoError(t, err)
	got, err := json.Marshal(schema)
	require.NoError(t, err)
	const file, env = " This is the path of the file that contains it.", " This is the name of the environment variable that contains it."
	assert.JSONEq(t, `{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title": "Test",
		"type": "object",
		"additionalProperties": false,
		"properties": {
			"mode": {"description": "The mode.", "type": "string", "enum": ["on", "off", "auto"]},
			"modes": {"description": "All modes.", "anyOf": [
				{"type": "string", "enum": ["on", "off"]},
				{"type": "array", "minItems": 1, "items": {"type": "string", "enum": ["on", "off"]}}
			]},
			"port": {"description": "The port.", "const": "https"},
			"ports": {"description": "All ports.", "type": "object", "propertyNames": {"minLength": 1},
				"additionalProperties": {"description": "A port.", "type": "integer"}},
			"token": {"description": "The token.", "type": "string"},
			"token_file": {"description": "The token.`+file+`", "type": "string"},
			"token_env": {"description": "The token.`+env+`", "type": "string"},
			"list": {"description": "The list.", "type": "array", "items": {
				"type": "object",
				"additionalProperties": false,
				"properties": {"name": {"description": "The name.", "type": "string", "enum": ["a", "b"]}},
				"required": ["name"],
				"allOf": [{"required": ["name"]}]
			}}
		},
		"allOf": [
			{"allOf": [
				{"if": {"required": ["token"]}, "then": {"properties": {"token_file": false, "token_env": false}}},
				{"if": {"required": ["token_file"]}, "then": {"properties": {"token_env": false}}}
			]}
		]
	}`, string(got))
}

func TestValuesOfAListAreChecked(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a value that is not in the list", "mode: sometimes", `1: mode: "sometimes" is not on, off or auto`},
		{"an empty value", "mode: ''", "1: mode: is empty"},
		{"one of several", "modes: [on, auto]", `1: modes[1]: "auto" is not on or off`},
		{"one in place of several", "modes: auto", `1: modes: "auto" is not on or off`},
		{"values that are in the list", "mode: auto\nmodes: [on, off]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v listed
			err := config.Read("c.yaml", strings.NewReader(c.text), &v, func(*config.Document) error { return nil })
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "c.yaml:"+c.want)
		})
	}
}

func TestSchemaOfAMappingWithAShortField(t *testing.T) {
	schema, err := config.SchemaOf(shortened{}, config.Guide{
		Keys: map[string]string{"rules": "x", "rules.text": "x", "rules.message": "x", "rows": "x", "rows.*": "x", "rows.*.text": "x", "rows.*.message": "x"},
	})
	require.NoError(t, err)
	got, err := json.Marshal(schema["properties"].(map[string]any)["rows"].(config.Schema)["additionalProperties"])
	require.NoError(t, err)
	assert.JSONEq(t, `{"description": "x", "anyOf": [
		{"type": "string", "minLength": 1},
		{"type": "object", "additionalProperties": false, "required": ["text"], "properties": {
			"text": {"type": "string", "minLength": 1, "description": "x"}, "message": {"type": "string", "minLength": 1, "description": "x"}}}
	]}`, string(got))
}
