// Package schematest validates YAML and JSON by the JSON Schemas of configuration files. It is for tests.
package schematest

import (
	"bytes"
	"encoding/json"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/valetkey/valetkey/internal/config"
)

// Check returns an error if the YAML text does not conform to the schema, which is a value that becomes a JSON Schema, or is one as
// JSON text.
func Check(schema any, text string) error {
	value, err := config.Value(text)
	if err != nil {
		return err
	}
	return validate(schema, value)
}

// CheckJSON does the same for a JSON text.
func CheckJSON(schema any, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return validate(schema, value)
}

func validate(schema, value any) error {
	raw, isText := schema.([]byte)
	if !isText {
		var err error
		if raw, err = json.Marshal(schema); err != nil {
			return err
		}
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("schema.json", parsed); err != nil {
		return err
	}
	compiled, err := compiler.Compile("schema.json") // validates the schema by its draft
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}
