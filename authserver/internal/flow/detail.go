package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// A Detail is an element of authorization_details (RFC 9396, section 2): a JSON object in one form, so that users see what an API
// gets. Names are sorted, and no name occurs twice.
type Detail struct{ Type, JSON string }

// MarshalJSON returns the object.
func (d Detail) MarshalJSON() ([]byte, error) { return []byte(d.JSON), nil }

// UnmarshalJSON reads an object that MarshalJSON has returned.
func (d *Detail) UnmarshalJSON(text []byte) error {
	var typed struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(text, &typed)
	*d = Detail{typed.Type, string(text)}
	return err
}

const maxDetails = 20

// ReadDetails parses the parameter authorization_details: a JSON array of objects that each have a type. The text may be empty; then the
// result is nil. The text null is a mistake: a request that names no details must not differ from one without the parameter.
func ReadDetails(text string) ([]Detail, error) {
	if text == "" {
		return nil, nil
	}
	var list []strictjson.Value
	err := strictjson.Entries(fmt.Appendf(nil, `{"details":%s}`, text), func(name string, v strictjson.Value) error {
		elements, ok := v.Elements()
		if !ok || name != "details" || len(elements) == 0 || len(elements) > maxDetails {
			return errors.New("authorization_details is not an array of 1 to 20 elements")
		}
		list = elements
		return nil
	})
	if err != nil {
		return nil, err
	}
	details := make([]Detail, len(list))
	for i, element := range list {
		if err := strictjson.Object(element, func(name string, v strictjson.Value) error {
			if name == "type" {
				details[i].Type, _ = v.Text()
			}
			return nil
		}, "type"); err != nil {
			return nil, err
		}
		if details[i].Type == "" {
			return nil, errors.New("a detail has no type")
		}
		d := json.NewDecoder(bytes.NewReader(element))
		d.UseNumber() // an amount stays as it is
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		one, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		details[i].JSON = string(one)
	}
	return details, nil
}
