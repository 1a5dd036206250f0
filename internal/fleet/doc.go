// Package fleet has tests only. They run many guards of one issuer in virtual time, and write docs/scale.md.
package fleet
