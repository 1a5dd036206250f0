package strictjson_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// payload is what issuers send: some 600 bytes of claims.
const payload = `{"iss":"https://as.example.com/tenants/4711","sub":"248289761001-7f3c-4d1e-9a53-1c2b3d4e5f60","aud":["https://api.example.com/orders","https://api.example.com/billing"],` +
	`"exp":1790000000,"iat":1789999100,"nbf":1789999100,"jti":"b2f3c1e7-6a4d-4f0b-9a53-5b1d2c3e4f60","client_id":"s6BhdRkqt3-web-frontend","scope":"orders:read orders:write billing:read profile",` +
	`"auth_time":1789990000,"acr":"urn:example:loa:2","amr":["pwd","otp"],"tenant":"tenant-0042","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},"email_verified":true,"groups":["a","b"]}`

type claims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
	ID       string   `json:"jti"`
	ClientID string   `json:"client_id"`
	Scope    string   `json:"scope"`
	Expiry   float64  `json:"exp"`
	IssuedAt float64  `json:"iat"`
	NotBefor float64  `json:"nbf"`
}

// read reads the claims that a verifier needs.
func read(data []byte) (c claims, err error) {
	err = strictjson.Object(data, func(name string, v strictjson.Value) error {
		switch name {
		case "iss":
			c.Issuer, _ = v.Text()
		case "sub":
			c.Subject, _ = v.Text()
		case "aud":
			c.Audience, _ = v.Strings()
		case "jti":
			c.ID, _ = v.Text()
		case "client_id":
			c.ClientID, _ = v.Text()
		case "scope":
			c.Scope, _ = v.Text()
		case "exp":
			c.Expiry, _ = v.Number()
		case "iat":
			c.IssuedAt, _ = v.Number()
		case "nbf":
			c.NotBefor, _ = v.Number()
		}
		return nil
	})
	return c, err
}

func BenchmarkPayload(b *testing.B) {
	data := []byte(payload)
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := strictjson.Object(data, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("strictjson", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := read(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			var c claims
			if err := json.Unmarshal(data, &c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What an attacker can make of 12 kB, the most that a token has room for.
func BenchmarkAttack(b *testing.B) {
	var members strings.Builder
	for i := 0; members.Len() < 12_000 && i < strictjson.MaxMembers; i++ {
		fmt.Fprintf(&members, `,"%05d":0`, i)
	}
	for name, text := range map[string]string{
		"members":  `{` + members.String()[1:] + `}`,
		"capitals": `{"` + strings.Repeat("A", 12_000) + `":0}`,
		"escapes":  `{"a":"` + strings.Repeat(`\u00e9`, 2_000) + `"}`,
		"deep":     strings.Repeat(`{"a":`, 2_400),
		"objects":  `{"a":[{}` + strings.Repeat(`,{"a":0}`, 1_500) + `]}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				strictjson.Object([]byte(text), nil)
			}
		})
	}
}
